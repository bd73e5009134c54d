"""Text that stays text in Markdown, whatever it holds."""

import re


def one_line(text: str) -> str:
    """The text with every run of blanks and line breaks as one blank."""
    return " ".join(text.split())


def plain(text: str) -> str:
    """The text on one line, with everything escaped that Markdown or HTML would read as markup."""
    return re.sub(r"([\\`*_{}\[\]()#!|<>&])", r"\\\1", one_line(text))


def fenced(text: str) -> str:
    """The text as a block of code, whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"
