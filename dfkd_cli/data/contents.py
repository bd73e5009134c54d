"""What was read of the images that the user gave, and what was not."""

from dataclasses import dataclass, field

from dfkd_cli.data.image_files import described

_NAMED = 5  # files in a note


@dataclass(frozen=True)
class Contents:
    """What was read of a folder of images, and what was not."""

    class_order: str | None = None  # how the images' classes were numbered, in words; null without labels
    classes_without_images: tuple[str, ...] = ()
    passed_over: dict[str, int] = field(default_factory=dict)  # reason -> number of files that are no images
    unreadable: tuple[str, ...] = ()  # image files that --skip-unreadable left out

    def notes(self, where: str) -> list[str]:
        """Return sentences for the user about what was not read of `where`."""
        notes = []
        if empty := self.classes_without_images:
            have = "class has" if len(empty) == 1 else "classes have"
            notes.append(f"{where}: {len(empty):,} {have} no images: {_listed(empty)}.")
        if self.passed_over:
            notes.append(f"{where}: {described(self.passed_over)}.")
        if self.unreadable:
            were = "image file was" if len(self.unreadable) == 1 else "image files were"
            listed = _listed(self.unreadable)
            notes.append(f"{where}: {len(self.unreadable):,} unreadable {were} skipped: {listed}.")
        return notes


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if names[_NAMED:] else "")
