"""The class numbers of labelled images: names of folders matched with the classes of a network."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from timm.utils.misc import natural_key

from dfkd_cli.errors import UsageError

ClassOrder = Literal["text", "natural"]
_SHOWN = 5  # names in a message
_FEW = 12  # names that are all shown


@dataclass(frozen=True)
class Numbering:
    """The class numbers of found classes."""

    numbers: tuple[int, ...]  # one per found class
    names: tuple[str, ...]  # of all classes of the network, by number
    order: str  # how they were found out, in words


def spelled(name: str) -> str:
    """Return the name without what differs between its spellings.

    Capitals, Unicode forms, leading zeros, and blanks, `_`, `-` and `/` between words make no difference.
    """
    words = re.sub(r"[\s_/-]+", " ", unicodedata.normalize("NFKC", name)).casefold().strip()
    return re.sub(r"\d+", lambda digits: str(int(digits[0])), words)


def by_name(found: Sequence[Sequence[str]], names: Sequence[str]) -> list[int | None]:
    """Return the class number of each found class, None for one that is not among the `names` of the network.

    A found class has one or several names. Spellings are compared as well, unless two classes of the network have the
    same one.
    """
    exact = {name: number for number, name in enumerate(names)}
    alike = {spelled(name): number for number, name in enumerate(names)}
    if len(alike) < len(names):
        alike = {}
    return [_first((*map(exact.get, known), *(alike.get(spelled(name)) for name in known))) for known in found]


def in_order(names: Sequence[str], order: ClassOrder) -> list[str]:
    """Return the names in the order of text (torchvision, Keras) or in natural order (timm).

    In natural order capitals count as small letters, and digits as the number that they are.
    """
    return sorted(names) if order == "text" else sorted(sorted(names), key=_natural_key(names))


def check_order(order: object) -> None:
    """Raise UsageError for an order that there is not."""
    if order is not None and order not in get_args(ClassOrder):
        raise UsageError(f"--class-order {order}: give {' or '.join(get_args(ClassOrder))}")


def number_by_order(found: Sequence[str], order: ClassOrder | None, where: str) -> Numbering:
    """Return the numbers of classes that are all classes of the network, in the order of their names.

    Raises UsageError when text and natural order differ and `order` is not given.
    """
    text, natural = in_order(found, "text"), in_order(found, "natural")
    if order is None and text != natural:
        raise UsageError(
            f"{where}: nothing states the order of the network's classes: as text they are "
            f"{_differing(text, natural)}, in natural order {_differing(natural, text)}; add --class-order text "
            "(torchvision, Keras), --class-order natural (timm), or --classes FILE with one name per line"
        )
    names = natural if order == "natural" else text
    place = {name: number for number, name in enumerate(names)}
    how = f"folder names in {order} order (--class-order)" if order else "folder names in alphabetical order"
    return Numbering(tuple(place[name] for name in found), tuple(names), how)


def shown(names: Sequence[str]) -> str:
    """Return the first names for a message."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def strange_to(names: Sequence[str], strange: Sequence[str]) -> str:
    """Return the clause of a message about found classes that are not among the `names` of the network."""
    are = "is" if len(strange) == 1 else "are"
    return f"{shown(strange)} {are} none of the network's classes ({shown(names)})"


def _differing(names: Sequence[str], other: Sequence[str]) -> str:
    """Return the names around the first one that differs; all of a few names."""
    if len(names) <= _FEW:
        return ", ".join(names)
    first = next(index for index, pair in enumerate(zip(names, other, strict=True)) if pair[0] != pair[1])
    begin = max(0, min(first - 1, len(names) - _SHOWN))
    return ("..., " if begin else "") + shown(names[begin:])


def same_order(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether no class of `one` has another number in `other`; classes that only one of them names agree."""
    return all(found in (None, number) for number, found in enumerate(by_name([(name,) for name in one], other)))


def _first(numbers: Iterable[int | None]) -> int | None:
    return next((number for number in numbers if number is not None), None)


def _natural_key(names: Sequence[str]) -> Callable[[str], Any]:
    try:
        for name in names:
            natural_key(name)
    except ValueError:  # a sign such as a superscript two, with which timm's own reader stops
        return lambda name: name
    return natural_key
