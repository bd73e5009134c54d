"""Collects input size, normalisation and number of classes of a network, each value with its source."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dfkd_cli.errors import DfkdError, TeacherError, UsageError
from dfkd_cli.loading.options import CHOICES, FLAGS, PREPROCESSING, LoadOptions, listed
from dfkd_cli.networks.class_names import described_classes
from dfkd_cli.networks.classifier import InputSpec, Preprocessing
from dfkd_cli.networks.returned import class_count

TIMM_DEFAULTS = {"crop_pct": 0.875, "interpolation": "bicubic", "crop_mode": "center"}
_MAX_CLASSES = 1_000_000  # the head of a larger number would take gigabytes


class Findings:
    """Values of an InputSpec. The first source of a value wins, so the most reliable source must come first."""

    def __init__(self, options: LoadOptions):
        self.values: dict[str, Any] = {}
        self.found: dict[str, str] = {}
        self.channels: int | None = None  # of the weights
        self.notes: list[str] = []  # for the user, one sentence each
        self.unknown = ""  # why missing values cannot be assumed
        self._class_names: list[tuple[tuple[str, ...], str]] = []  # (names, source), the most reliable source first
        self._class_names_outside: list[tuple[tuple[str, ...], str]] = []
        self._assumed: list[str] = []  # names of values that no source states
        self._assumed_before: list[str] = []  # names of those that were assumed when the file was written
        for name, flag in (FLAGS | PREPROCESSING).items():
            self.offer(name, getattr(options, name), flag.split()[0])

    def offer(self, name: str, value: Any, source: str) -> None:
        """Keep `value` unless it is None or an earlier source gave one."""
        if value is not None and name not in self.values:
            self.values[name] = tuple(value) if isinstance(value, list) else value
            self.found[name] = source

    def offer_metadata(self, metadata: Mapping[str, Any], source: str) -> None:
        """Offer num_classes, input_size, mean, std and preprocessing of a JSON object inside a file; ignore other keys.

        Raises TeacherError for an invalid value that no earlier source gave: the file is damaged or hostile.
        """
        for name in (*FLAGS, *_stated_preprocessing(metadata)):
            value = metadata.get(name)
            if value is not None and name not in self.values:
                assumed = name in _names(metadata.get("assumed"))
                self._assumed_before += [name] if assumed else []
                self.offer(name, _checked(name, value, source), f"{source}, which assumes it" if assumed else source)

    def offer_configuration(self, configuration: Mapping[str, Any], source: str) -> None:
        """Offer what `offer_metadata` does of a configuration of timm.

        Where it states crop_pct, interpolation or crop_mode, timm uses its defaults for the others.
        """
        stated = _stated_preprocessing(configuration)
        self.offer_metadata(configuration, source)
        if stated:
            missing = {name: value for name, value in TIMM_DEFAULTS.items() if name not in stated}
            self.offer_metadata(missing, f"timm's default beside {source}")

    def offer_class_names(self, description: Any, source: str, outside: bool = False) -> None:
        """Offer the class names in a description of any kind; one without class names is ignored.

        With `outside` the description is not in the file itself, which has priority whatever the order of the offers.
        """
        known = self._class_names_outside if outside else self._class_names
        known += [(names, source) for names in described_classes(description)]

    def assume(self, name: str, value: Any, source: str, note: str | None = None) -> None:
        """Set a value that no source states; `source` begins with "assumed", and `note` says the same to the user."""
        self.offer(name, value, source)
        self._assumed.append(name)
        self.notes += [] if note is None else [note]

    def refuse_assumptions(self) -> None:
        """Raise UsageError with the flags to give in place of values that were assumed; nothing when there are none."""
        if not self._assumed:
            return
        flags = [_flag(name, self.values[name]) for name in self._assumed]
        flags += [FLAGS[name] for name in ("mean", "std") if name not in self.values]
        reasons = "; ".join(f"{name} would be {self.found[name]}" for name in self._assumed)
        raise UsageError(f"--strict refuses assumptions: {reasons}; give {' '.join(flags)}, or the true values")

    def must_agree(self, name: str, value: Any, source: str) -> None:
        """Offer a value of the weights; raise UsageError if a flag contradicts it, TeacherError if the file does."""
        known = self.values.get(name, value)
        if known != value:
            raise _disagreement(self.found[name], name, known, value, source)
        self.offer(name, value, source)

    def outputs_must_agree(self, outputs: int, source: str) -> None:
        """Offer the number of classes for `outputs` outputs per image; raises errors like `must_agree`."""
        self.must_agree("num_classes", class_count(outputs), source)

    def channels_must_agree(self, channels: int, source: str) -> None:
        """Set the channels of the weights; raises errors like `must_agree` when the input size differs."""
        self.channels = channels
        size = self.values.get("input_size")
        if size is not None and size[0] != channels:
            raise _disagreement(self.found["input_size"], "channels", size[0], channels, source)

    def require(self, *names: str, seen: str = "") -> None:
        """Raise one UsageError that names the flag of every missing value among `names`, and what was seen of them."""
        missing = [FLAGS[name] for name in names if name not in self.values]
        if missing:
            known = ", ".join(
                f"{name} {_short(self.values[name])} {stated_by(where)}" for name, where in self.found.items()
            )
            stated = f" (only {known})" if known else ""
            seen = f", and {seen}" if seen else ""
            raise UsageError(f"the file does not describe its input completely{stated}{seen}; add {' '.join(missing)}")

    def spec(self) -> InputSpec:
        """Return the complete specification; raise UsageError for missing values and for lengths that do not fit."""
        self.require(*FLAGS)
        channels, height, width = self.values["input_size"]
        return InputSpec(
            size=(channels, height, width),
            num_classes=self.values["num_classes"],
            mean=self._per_channel("mean", channels),
            std=self._per_channel("std", channels),
            assumed=(*self._assumed_before, *self._assumed),
            class_names=self._known_class_names(),
            preprocessing=Preprocessing(**{name: self.values[name] for name in PREPROCESSING if name in self.values}),
        )

    def _known_class_names(self) -> tuple[str, ...]:
        """Return the first names that are as many as the classes; () without such names."""
        for names, source in (*self._class_names, *self._class_names_outside):
            if len(names) == self.values["num_classes"]:
                self.found["class_names"] = source
                return names
        return ()

    def _per_channel(self, name: str, channels: int) -> tuple[float, ...]:
        values = self.values[name]
        if len(values) == 1:
            return tuple(values) * channels
        if len(values) != channels:
            source = self.found[name]
            wanted = "1" if channels == 1 else f"{channels} or 1"
            raise UsageError(f"{source} gives {len(values)} {name} values for {channels} channel(s); give {wanted}")
        return tuple(values)


def stated_by(source: str) -> str:
    """Return "from SOURCE", or the source itself where the value is assumed."""
    return source if source.startswith("assumed") else f"from {source}"


def _flag(name: str, value: Any) -> str:
    text = "x".join(map(str, value)) if name == "input_size" else listed(value)
    return f"{FLAGS[name].split()[0]} {text}"


def _names(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _disagreement(known_source: str, name: str, known: Any, value: Any, source: str) -> DfkdError:
    what = name.replace("num_", "")
    kind = UsageError if known_source.startswith("--") else TeacherError
    return kind(f"{known_source} says {known} {what}, but {source} says {value}")


def _checked(name: str, value: Any, source: str) -> Any:
    """Return `value` as a tuple of numbers or a whole number; raise TeacherError when it is neither."""
    if name == "num_classes":
        if not _is_whole(value) or not 1 <= value <= _MAX_CLASSES:
            raise TeacherError(f"{source} says num_classes is {_short(value)}; expected a whole number from 1 up")
        return class_count(value)
    if name in PREPROCESSING:
        return _checked_preprocessing(name, value, source)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise TeacherError(f"{source} says {name} is {_short(value)}; expected a list of numbers")
    if name == "input_size":
        if len(value) != 3 or not all(_is_whole(number) and 0 < number <= 16384 for number in value):
            raise TeacherError(f"{source} says input_size is {_short(value)}; expected [channels, height, width]")
        return tuple(value)
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
    if not numeric or (name == "std" and min(value) <= 0):
        raise TeacherError(f"{source} says {name} is {_short(value)}; expected finite numbers, std above 0")
    return tuple(float(number) for number in value)


def _stated_preprocessing(metadata: Mapping[str, Any]) -> list[str]:
    """Return which of crop_pct, interpolation and crop_mode are stated; for timm an empty text and 0 are not."""
    return [name for name in PREPROCESSING if metadata.get(name)]


def _checked_preprocessing(name: str, value: Any, source: str) -> Any:
    """Return the value as a number or a known word; raise TeacherError when it is neither."""
    if name == "crop_pct":
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
            raise TeacherError(f"{source} says crop_pct is {_short(value)}; expected a number above 0 and up to 1")
        return float(value)
    if value not in CHOICES[name]:
        raise TeacherError(f"{source} says {name} is {_short(value)}; expected one of {', '.join(CHOICES[name])}")
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return repr(value)[:60]
