"""Escaping of arbitrary text in Markdown."""

import re


def one_line(text: str) -> str:
    """Return the text with each run of whitespace replaced by one space."""
    return " ".join(text.split())


def plain(text: str) -> str:
    """Return the text on one line, with the characters escaped that Markdown or HTML would interpret."""
    return re.sub(r"([\\`*_{}\[\]()#!|<>&])", r"\\\1", one_line(text))


def fenced(text: str) -> str:
    """Return the text as a code block, whose fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"
