"""Arguments of timm.create_model besides classes, channels and image size, from files of strangers."""

from typing import Any

from dfkd_cli.errors import TeacherError

_LOADING = frozenset({"checkpoint_path", "cache_dir", "features_only", "pruned"})
_PLAIN = (int, float, str, bool, type(None))
_FITTED = frozenset({"num_classes", "in_chans", "img_size"})  # of which the weights and the user decide


def model_arguments(arguments: Any, where: str) -> dict[str, Any]:
    """Return the arguments that `where` states; {} for None.

    Raises TeacherError unless they are plain values, and for arguments that make timm load other files.
    """
    if arguments is None:
        return {}
    if not isinstance(arguments, dict) or not all(is_plain(value) for value in arguments.values()):
        raise TeacherError(f"{where} has model_args that are not plain values; remove them")
    loading = [name for name in arguments if not isinstance(name, str) or _loads_files(name)]
    if loading:
        raise TeacherError(f"{where} has {loading[0]!r} in model_args, which loads other files; remove it")
    return dict(arguments)


def without_fitted(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments without those that follow from the weights."""
    return {name: value for name, value in arguments.items() if name not in _FITTED}


def _loads_files(name: str) -> bool:
    return name.startswith("pretrained") or name in _LOADING


def is_plain(value: Any) -> bool:
    """Return whether a value is a number, text, truth value or None, or a list of these."""
    return isinstance(value, _PLAIN) or (
        isinstance(value, list | tuple) and all(isinstance(item, _PLAIN) for item in value)
    )
