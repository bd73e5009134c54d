"""Text of any length fitted to the width of a terminal."""

import os
import shutil
import sys
import textwrap


def print_rows(rows: list[tuple[str, str]], indent: int) -> None:
    """Print one labelled row after another; the text begins at column `indent` and wraps there on a terminal.

    Output that is neither a terminal nor has a width in COLUMNS is not wrapped, so that it can be searched by line.
    """
    for label, text in rows:
        print(_row(label, text, indent))


def _row(label: str, text: str, indent: int) -> str:
    if not (sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()):
        return f"{label:{indent}}{text}".rstrip()
    width = max(shutil.get_terminal_size().columns, indent + 20)
    first = f"{label:{indent - 1}} "
    wrapped = textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(wrapped) or label
