"""The wheel contains everything that `dfkd` needs, and works from any folder."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def copy_repository(folder: Path) -> None:
    """Copy the files that git tracks, and new ones that it does not ignore: a build writes beside its sources."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return a folder with the unpacked wheel, which is built from a copy of the repository's files."""
    source, wheels, place = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "installed"))
    copy_repository(source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*build, "--wheel-dir", str(wheels), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def run(installed: Path, code: str, tmp_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {code}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_recipes_are_found_from_any_folder(installed, tmp_path):
    code = "import dfkd_cli.recipe.recipe as r; print(r.__file__); print(r.load_recipe('ssd', []).method)"
    file, method = run(installed, code, tmp_path).split()
    assert file.startswith(str(installed))
    assert method == "ssd"


def test_every_module_is_packaged(installed):
    modules = [path.relative_to(ROOT) for path in (ROOT / "dfkd_cli").rglob("*.py")]
    assert len(modules) > 200
    assert [str(module) for module in modules if not (installed / module).exists()] == []


def test_every_template_of_the_report_is_packaged(installed):
    package = ROOT / "dfkd_cli" / "report"
    templates = [package / "model_card.md", *(package / "page" / "templates").iterdir()]
    assert len(templates) > 2
    for template in templates:
        assert (installed / template.relative_to(ROOT)).read_text() == template.read_text()


def test_the_command_is_declared(installed):
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "dfkd = dfkd_cli.cli:main" in entry_points.read_text()


def test_tests_and_benchmarks_are_not_packaged(installed):
    assert not any((installed / name).exists() for name in ("tests", "benchmarks", "recipes"))
