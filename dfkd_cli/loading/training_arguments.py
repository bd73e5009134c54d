"""What the arguments of a training script, stored in its checkpoint, say about the network."""

from collections.abc import Mapping
from typing import Any

from dfkd_cli.loading.model_arguments import model_arguments, without_fitted


class TrainingArguments:
    """The `args` of a checkpoint: those of timm's script, or of another one with names of its own."""

    def __init__(self, args: Any):
        values = vars(args) if hasattr(args, "__dict__") else args
        self.values: Mapping[str, Any] = values if isinstance(values, Mapping) else {}

    def of_timm(self) -> bool:
        """Return whether timm's script wrote them: it stores a mean also where none was given."""
        return "mean" in self.values

    def input_facts(self) -> dict[str, Any]:
        """Return what they state about the images, in the names of timm; None values are defaults and left out.

        Values in other forms belong to scripts with other habits, such as `input_size: 32`, and are left out too.
        """
        found = {name: self._numbers(name) for name in ("mean", "std", "input_size")}
        found |= {name: self.values.get(name) for name in ("num_classes", "crop_pct", "interpolation", "crop_mode")}
        side = self.values.get("img_size")
        if found["input_size"] is None and isinstance(side, int):
            found["input_size"] = [self.values.get("in_chans") or 3, side, side]
        return {name: value for name, value in found.items() if value is not None}

    def constructor(self) -> dict[str, Any]:
        """Return what timm's script passed on to timm.create_model, except for what follows from the weights.

        Raises TeacherError for arguments that are no plain values, or that make timm load other files.
        """
        if not self.of_timm():
            return {}
        own = {"global_pool": self.values.get("gp"), "bn_eps": self.values.get("bn_eps")}
        given = {name: value for name, value in own.items() if value is not None}
        given |= self.values.get("model_kwargs") or {}
        return without_fitted(model_arguments(given, "the checkpoint's training arguments"))

    def _numbers(self, name: str) -> Any:
        value = self.values.get(name)
        numbers = isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value)
        return value if numbers else None
