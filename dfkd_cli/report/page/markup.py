"""Pieces of HTML. Whatever comes in as text is escaped here; what comes out is markup."""

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Markup(str):
    """Text that is HTML already: it is not escaped again."""


class Figure(NamedTuple):
    """One key figure: what it is, its value, and what that means."""

    name: str
    value: str
    meaning: str


def escape(text: object) -> Markup:
    """The text for use between tags and inside quoted attributes."""
    return text if isinstance(text, Markup) else Markup(html.escape(str(text)))


def join(parts: Iterable[Markup]) -> Markup:
    """The parts, one per line."""
    return Markup("\n".join(parts))


def code(text: str) -> Markup:
    """Text that may be broken anywhere: a hash, a path."""
    return Markup(f"<code>{escape(text)}</code>")


def table(rows: Iterable[Sequence[object]], head: Sequence[object] = (), kind: str = "") -> Markup:
    """A table whose first column names the rows; `kind` is its CSS class."""
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    header = f"<thead><tr>{cells}</tr></thead>" if head else ""
    return Markup(f'<div class="scroll"><table class="{kind}">{header}<tbody>{body}</tbody></table></div>')


def key_figures(figures: Iterable[Figure]) -> Markup:
    """The row of large figures at the top."""
    cards = "\n".join(
        f"<div><dt>{escape(name)}</dt><dd><b>{escape(value)}</b><span>{escape(meaning)}</span></dd></div>"
        for name, value, meaning in figures
    )
    return Markup(f'<dl class="figures">{cards}</dl>')


def section(title: str, *content: Markup) -> Markup:
    """A part of the page; nothing at all when it has no content."""
    filled = [part for part in content if part]
    return Markup(f"<section><h2>{escape(title)}</h2>\n{join(filled)}\n</section>") if filled else Markup()


def paragraph(text: object, kind: str = "") -> Markup:
    """One paragraph; `kind` is its CSS class."""
    return Markup(f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>")
