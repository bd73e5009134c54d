"""The cause of a failed forward on noise, found from its error and by further forwards, and what to do about it."""

import contextlib
import re
from collections.abc import Iterator
from itertools import chain

from dfkd_cli.errors import DfkdError, TeacherError
from dfkd_cli.loading.input_sizes import SIDES, find_input_size
from dfkd_cli.loading.layouts import channels_last, is_channels_last, other_input, other_layout
from dfkd_cli.loading.trial import Trial
from dfkd_cli.networks.forward_error import ForwardError

NO_ROWS = "name another output with --output, or export the part of the network that returns class scores"
_LIKELY_SIDES = (32, 224, 28)  # tried before the others
_ABOUT_TYPES = re.compile(r"\btypes?\b|dtype|not implemented for", re.IGNORECASE)
_TYPE = re.compile(r"\b(?:c10::|torch\.)?(bfloat16|half|float16|double|float64)\b", re.IGNORECASE)
_TYPE_NAMES = {"half": "float16", "double": "float64"}
_DEVICE = re.compile(r"\b(cuda|nvidia|hip|mps|xpu|mkldnncpu)\b|same device", re.IGNORECASE)
_ARGUMENTS = re.compile(r"missing \d+ required positional arguments?|takes \d+ positional arguments?")


@contextlib.contextmanager
def explained(trial: Trial, size: tuple[int, int, int]) -> Iterator[None]:
    """Add the cause to a ForwardError of the block, which runs the network on images of `size` (C, H, W).

    A size (H, W, C) that the network accepts is an error too: such a network takes its channels last.
    """
    try:
        yield
    except ForwardError as error:
        raise TeacherError(f"{error}; {_cause(trial, size, error)}") from error
    if is_channels_last(size):
        raise channels_last(size, trial.module)


def cause_at_any_size(trial: Trial, channels: list[int]) -> DfkdError | None:
    """Return the error of a network that no size changes, found from a forward at one size; None without one."""
    if trial.failure is None and trial.refusal is None:
        trial.built((channels[0], _LIKELY_SIDES[0], _LIKELY_SIDES[0]))
    if trial.refusal is not None:
        return trial.refusal
    words = _from_words(str(trial.failure))
    return TeacherError(f"{trial.failure}; {words}") if words else None


def cause_at_all_sizes(trial: Trial, channels: list[int]) -> DfkdError | None:
    """Return the error of a network that accepts no tried size; None when nothing but the size explains that."""
    failure = str(trial.failure)
    if sentence := _other_input(trial, channels):
        return TeacherError(f"{failure}; {sentence}")
    if trial.failure is not None and trial.failure.ran:
        return TeacherError(f"{failure}, and it does so for every tried size; {NO_ROWS}")
    return None


def _cause(trial: Trial, size: tuple[int, int, int], error: ForwardError) -> str:
    if not error.ran:
        if words := _from_words(str(error)):
            return words
        if sentence := other_layout(trial, trial.built, size):
            return sentence
    channels, height, width = size
    near = [(width, channels, height)] if is_channels_last(size) else []
    near += [(count, height, width) for count in trial.channels() if count != channels]
    if accepted := next((other for other in near if trial.built(other)), None):
        return _accepts("x".join(map(str, accepted)))
    found = find_input_size(trial, trial.channels(), trial.quick)
    if found is None:
        if not error.ran and (sentence := _other_input(trial, trial.channels())):
            return sentence
        tried = f"no square image of {SIDES[0]} to {SIDES[-1]} pixels works either"
        return f"{tried}; {NO_ROWS}" if error.ran else f"{tried}; if its images are not square, check --input-size"
    return _accepts(("" if found.only else "several sizes, among them ") + "x".join(map(str, found.size)))


def _accepts(sizes: str) -> str:
    return f"it accepts {sizes}; give its true size with --input-size CxHxW"


def _other_input(trial: Trial, channels: list[int]) -> str | None:
    """Return a sentence about the input that the network takes in place of images of any tried size, None if none."""
    likely = [(count, side, side) for count in channels for side in _LIKELY_SIDES]
    others = [(count, side, side) for count in channels for side in SIDES if side not in _LIKELY_SIDES]
    sentences = chain(
        (other_layout(trial, trial.quick, size) for size in (*likely, *others)),
        (other_layout(trial, trial.built, size) for size in likely),
        (other_input(trial, size) for size in likely),
    )
    return next((sentence for sentence in sentences if sentence), None)


def _from_words(text: str) -> str | None:
    """Return what the message of an error shows: another type, a device of its own, or several inputs."""
    kind = _TYPE.search(text)
    if kind and _ABOUT_TYPES.search(text):
        name = kind.group(1).lower()
        return (
            f"its forward converts tensors to {_TYPE_NAMES.get(name, name)}, whereas dfkd computes in float32: export "
            "it in float32, as `model.float()` and without `.bfloat16()`, `.half()` or `.double()` in its forward"
        )
    if _DEVICE.search(text):
        return (
            "its forward needs another device than the CPU: export it on the CPU, as `model.cpu()` and without "
            "`.cuda()`, `.to_mkldnn()` or `.to(DEVICE)` in its forward"
        )
    if _ARGUMENTS.search(text):
        return "its forward does not take a batch of images alone: export a module whose forward does"
    return None
