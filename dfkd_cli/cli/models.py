"""`dfkd models`: list the architectures of students."""

from __future__ import annotations

from typing import Annotated

import typer

from dfkd_cli.cli import options


def models(
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="Part of a name, or a pattern such as 'resnet*'.")
    ] = None,
    as_json: options.Json = False,
) -> object:
    """List architectures for a student: the reference networks, and with PATTERN also those of timm."""
    from dfkd_cli.students.models import list_students

    students = list_students(pattern)
    if as_json:
        return students
    if not pattern:
        print("--student 0.5 (default) is the teacher itself with at most half of its parameters: it keeps most")
        print("of what the teacher can do. --student NAME is another architecture, which begins with those layers")
        print("of the teacher that have the same name and shape:\n")
    for network in students.reference:
        size = "x".join(map(str, network.input_size))
        print(f"{network.name:24} {network.parameters:>12,} parameters at {size} and {network.num_classes} classes")
    for name in students.timm if pattern else ():
        print(name)
    if not pattern:
        print(f"and {len(students.timm):,} architectures of timm, e.g. dfkd models 'mobilenet*'")
    return None
