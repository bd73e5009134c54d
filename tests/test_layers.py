"""Tests of the import rules between the lower packages."""

import ast
from pathlib import Path

import pytest

import dfkd_cli

ROOT = Path(dfkd_cli.__file__).parent
# From low to high: a package imports itself and lower packages only.
LAYERS = ("errors", "models", "networks", "loading", "export")
TORCHSCRIPT = "dfkd_cli.networks.torchscript"


def module_name(path: Path) -> str:
    relative = path.relative_to(ROOT.parent).with_suffix("")
    return ".".join(relative.parts).removesuffix(".__init__")


def imported_modules(path: Path) -> set[str]:
    """Return the names of all modules that a file imports anywhere, also `package.name` for each imported name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


IMPORTS = {module_name(path): imported_modules(path) for path in sorted(ROOT.rglob("*.py"))}


def package(module: str) -> str:
    return ([*module.split("."), ""])[1] if module.startswith("dfkd_cli.") else ""


@pytest.mark.parametrize("layer", LAYERS)
def test_a_lower_package_imports_no_higher_one(layer: str) -> None:
    allowed = {*LAYERS[: LAYERS.index(layer) + 1]}
    modules = {name: names for name, names in IMPORTS.items() if package(name) == layer}
    assert modules
    upward = {
        (name, other)
        for name, names in modules.items()
        for other in names
        if package(other) in LAYERS and package(other) not in allowed
    }
    assert not upward


def test_only_the_torchscript_package_imports_its_modules() -> None:
    inner = {name for name in IMPORTS if name.startswith(f"{TORCHSCRIPT}.")}
    inside = {name for name in IMPORTS if name.startswith(TORCHSCRIPT)}
    assert inner
    assert not {(name, other) for name in IMPORTS.keys() - inside for other in IMPORTS[name] & inner}


def uses_private_functions(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr == "_C" and isinstance(node.value, ast.Name)
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_only_the_torchscript_package_uses_torchs_private_functions() -> None:
    users = {module_name(path) for path in ROOT.rglob("*.py") if uses_private_functions(path)}
    assert users
    assert all(name.startswith(TORCHSCRIPT) for name in users)
