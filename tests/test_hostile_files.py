"""Tests of hostile teacher files: none runs code, and each gives one line and a documented exit code."""

import contextlib
import warnings

import hostile_exports
import hostile_pickles
import pytest
import torch
from hostile_tools import ARCH, OPTIONS, Place, create, edit_program, honest_files, refused

from dfkd_cli.errors import DfkdError
from dfkd_cli.loading import LoadOptions, load_classifier


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture(scope="module")
def honest():
    torch.manual_seed(0)
    return honest_files(create(ARCH).eval())


@pytest.mark.parametrize("form", ["pt", "legacy", "script", "export", "safetensors"])
def test_the_honest_files_load(place, honest, form):
    place.path.write_bytes(honest[form])
    assert load_classifier(str(place.path), LoadOptions(**OPTIONS)).spec.num_classes == 10


@pytest.mark.parametrize("make", [*hostile_pickles.MAKERS, *hostile_exports.MAKERS])
def test_nothing_executes(place, honest, make, capfd, monkeypatch):
    make(place, honest)
    place.marker.unlink(missing_ok=True)
    monkeypatch.syspath_prepend(str(place.folder))
    before = set(place.folder.rglob("*"))
    assert refused(place.path, capfd).exit_code == 3
    assert set(place.folder.rglob("*")) == before


@pytest.mark.parametrize(
    "make",
    [
        hostile_pickles.pickle_in_torch_zip,
        hostile_pickles.pickle_in_old_torch_file,
        hostile_pickles.script_that_writes_on_load,
        hostile_pickles.script_that_writes_on_forward,
        hostile_pickles.script_with_aliased_module,
        hostile_pickles.script_with_getattr,
        hostile_pickles.script_with_autograd,
        hostile_pickles.script_with_autograd_twice,
        hostile_pickles.script_with_aliased_autograd,
        hostile_pickles.script_with_autograd_of_ops,
        hostile_pickles.script_with_code_in_capitals,
        hostile_exports.export_with_pickled_inputs,
        hostile_exports.export_with_pickled_weight,
        pytest.param(
            hostile_exports.export_with_opaque_object,
            marks=pytest.mark.skipif(torch.__version__ < "2.10", reason="torch 2.9 does not open opaque objects"),
        ),
        hostile_exports.export_with_code_as_expression,
    ],
    ids=lambda make: getattr(make, "__name__", "make"),
)
def test_the_traps_are_real(place, honest, make):
    """With --trust-pickle these files run their code, so the test above can detect it."""
    make(place, honest)
    place.marker.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(DfkdError):
            load_classifier(str(place.path), LoadOptions(**OPTIONS, trust_pickle=True))
    assert place.marker.exists()


@pytest.mark.parametrize("where", ["guards", "stack_trace", "submodule"])
def test_code_in_annotations_of_an_export_is_dropped(place, honest, where):
    def change(program, graph):
        if where == "guards":
            program["guards_code"] = [place.code]
        elif where == "stack_trace":
            graph["nodes"][0]["metadata"]["stack_trace"] = f'File "x", line 1, in y\n    z\r{place.code}'
        else:
            program["graph_module"]["module_call_graph"].append({"fqn": place.code, "signature": None})

    place.path.write_bytes(edit_program(honest["export"], change))
    classifier = load_classifier(str(place.path), LoadOptions(**OPTIONS))
    classifier(torch.rand(2, 1, 32, 32))
    assert not place.marker.exists()
