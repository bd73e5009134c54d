"""What the user says about labelled images."""

from dataclasses import dataclass

from dfkd_cli.data.class_numbers import ClassOrder
from dfkd_cli.errors import UsageError


@dataclass(frozen=True)
class LabelOptions:
    """How evaluation data are read."""

    classes: str | None = None  # file with the names of the network's classes, by number
    class_order: ClassOrder | None = None  # of the folder names, when nothing states the names of the classes
    skip_unreadable: bool = False  # leave out image files that cannot be decoded

    def check_needed(self, labelled: bool, unlabelled: bool) -> None:
        """Raise UsageError for an option about images that are not given."""
        if not labelled and (self.classes is not None or self.class_order is not None):
            raise UsageError("--classes and --class-order need --data, the labelled images whose classes they number")
        if not labelled and not unlabelled and self.skip_unreadable:
            raise UsageError("--skip-unreadable needs --data or --images, the image files that it is about")

    def check_for_compress(self, evaluated: bool) -> None:
        """Raise UsageError for an option about the images of --eval that are not given; the student keeps names."""
        if not evaluated and (self.class_order is not None or self.skip_unreadable):
            flag = "--skip-unreadable" if self.class_order is None else "--class-order"
            raise UsageError(f"{flag} needs --eval, the labelled images that it is about")

    def check_unused(self) -> None:
        """Raise UsageError when an option is given, for images with masks, which have none of these options."""
        if words := self.as_words():
            hint = "; use --class-names" if words[0] == "--classes" else ""
            raise UsageError(f"{words[0]} is for images with a class each, but the network segments images{hint}")

    def as_words(self) -> tuple[str, ...]:
        """Return the command-line words that give these options."""
        words = [] if self.classes is None else ["--classes", self.classes]
        words += [] if self.class_order is None else ["--class-order", self.class_order]
        return (*words, "--skip-unreadable") if self.skip_unreadable else tuple(words)


NO_LABEL_OPTIONS = LabelOptions()
