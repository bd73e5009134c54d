"""`dfkd schema`: print the JSON Schema of a command's --json."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Annotated, Any

import typer

from dfkd_cli.config.values import did_you_mean
from dfkd_cli.errors import UsageError

# Command -> module and dataclass of its document; by name, because most of the modules import torch.
DOCUMENTS = {
    "benchmark": ("dfkd_cli.evaluation.benchmark", "Speeds"),
    "check": ("dfkd_cli.recipe.check", "Checked"),
    "compress": ("dfkd_cli.report.report", "Report"),
    "evaluate": ("dfkd_cli.evaluation.evaluation", "Evaluation"),
    "export": ("dfkd_cli.export.export", "ExportReport"),
    "inspect": ("dfkd_cli.compression.inspect", "Inspection"),
    "models": ("dfkd_cli.students.models", "Students"),
    "plan": ("dfkd_cli.compression.plan", "Forecast"),
    "recipes": ("dfkd_cli.recipe.listing", "RecipeList"),
    "recipes copy": ("dfkd_cli.recipe.listing", "CopiedRecipe"),
    "recipes show": ("dfkd_cli.recipe.listing", "ShownRecipe"),
}


def schema(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND",
            help="A command with --json, e.g. evaluate, or recipes show.",
            autocompletion=lambda incomplete: [name for name in DOCUMENTS if name.startswith(incomplete)],
        ),
    ],
) -> None:
    """Print the JSON Schema of the document that COMMAND prints with --json."""
    print(json.dumps(find_schema(" ".join(command)), indent=2))


def find_schema(command: str) -> dict[str, Any]:
    """Return the schema of a command's document. Raises UsageError for an unknown command."""
    if command not in DOCUMENTS:
        known = ", ".join(DOCUMENTS)
        raise UsageError(f"no schema for '{command}'{did_you_mean(command, DOCUMENTS)}; choose one of: {known}")

    from dfkd_cli.cli.json_schema import document_schema

    module, kind = DOCUMENTS[command]
    return document_schema(command, getattr(import_module(module), kind))
