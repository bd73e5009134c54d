"""`dfkd inspect`: what it says of networks whose every number is known."""

import hashlib
import json
import warnings
from pathlib import Path

import pytest
import torch
from command_line import LOOK, dfkd, save_teacher
from torch import nn

from dfkd_cli.compression.inspect import Inspection, inspect_teacher
from dfkd_cli.loading import LoadOptions
from dfkd_cli.methods import METHODS
from dfkd_cli.students.from_teacher import Shares

SEEN = LoadOptions(input_size=(1, 8, 8), mean=(0.4,), std=(0.3,))
# One convolution of 1 x 8 x 3 x 3 weights at 6 x 6 places, and a linear layer of 32 x 3.
MACS, PARAMETERS = 8 * 9 * 36 + 32 * 3, 8 * 9 + 8 + 2 * 8 + 32 * 3 + 3


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> tuple[Path, Inspection]:
    path = save_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pt")
    return path, inspect_teacher(str(path), SEEN)


def test_numbers_are_those_of_the_network(seen):
    path, found = seen
    assert (found.kind, found.arch, found.classes) == ("TorchScript", None, 3)
    assert (found.parameters, found.macs, found.embedding) == (PARAMETERS, MACS, 32)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.file_bytes == path.stat().st_size
    assert found.norm_layers == {"BatchNorm": 1}
    assert (found.batchnorm.layers, found.batchnorm.channels, found.batchnorm.untrained_layers) == (1, 8, 1)
    assert found.stages[0] == (8, 6, 6)
    assert found.found["mean"] == "--mean"
    assert found.found["num_classes"] == "the forward on noise"


def test_the_smallest_share_of_a_student_is_that_which_compress_reaches(seen, tmp_path):
    path, found = seen
    assert found.shares.smallest is not None
    one_channel = 9 + 1 + 2 + 4 * 3 + 3
    assert found.shares.smallest == pytest.approx(one_channel / PARAMETERS, abs=1e-3)
    result = dfkd("inspect", path, *LOOK)
    assert f"--student from {found.shares.smallest:g} on" in result.stdout
    below = dfkd("plan", path, *LOOK, "--student", "0.05")
    assert below.exit_code == 2
    assert f"the smallest possible share of this network is {found.shares.smallest:g}" in below.stderr
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(linear, torch.rand(2, 1, 8, 8)), tmp_path / "linear.pt")
    assert inspect_teacher(str(tmp_path / "linear.pt"), SEEN).shares == Shares(None, "no channel can go", ())


def test_every_recipe_is_judged_and_misfits_say_why(seen, tmp_path):
    assert [fit.name for fit in seen[1].recipes if fit.fits] == sorted(METHODS)
    assert [fit.name for fit in seen[1].recipes if fit.pool] == ["unlabeled"]
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(linear, torch.rand(2, 1, 8, 8)), tmp_path / "linear.pt")
    fits = {fit.name: fit for fit in inspect_teacher(str(tmp_path / "linear.pt"), SEEN).recipes}
    assert fits["ssd"].fits
    assert (fits["csd"].fits, fits["csd"].reason) == (False, "needs feature maps")


def test_other_normalisations_are_counted_in_eager_networks():
    found = inspect_teacher("timm:test_vit", LoadOptions(pretrained=False, num_classes=7))
    assert found.norm_layers["LayerNorm"] > 0
    assert found.batchnorm.layers == 0
    assert found.classes == 7


def test_an_archive_of_one_batch_size_costs_what_one_image_costs(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(16, 64) @ torch.ones(64, 3, device=x.device)

    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.trace(Fixed(), torch.rand(16, 1, 8, 8)), tmp_path / "fixed.pt")
    assert inspect_teacher(str(tmp_path / "fixed.pt"), SEEN).macs == 64 * 3


def test_people_read_the_same_and_the_origin_of_each_value(seen):
    result = dfkd("inspect", seen[0], *LOOK)
    assert result.exit_code == 0, result.stderr
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert rows["kind"] == "TorchScript"
    assert rows["mean"].split() == ["0.4", "(--mean)"]
    assert rows["input"].split() == ["1x8x8", "(--input-size)"]
    assert "mean 0 and variance 1 (untrained) in 1" in result.stdout
    assert "unlabeled, with --pool DIR" in result.stdout
    assert json.loads(dfkd("inspect", seen[0], *LOOK, "--json").stdout)["macs"] == MACS


def test_what_is_unknown_is_named_beside_what_is_known(seen):
    result = dfkd("inspect", seen[0], "--input-size", "1x8x8")
    assert result.exit_code == 2
    assert "input_size (1, 8, 8) from --input-size" in result.stderr
    assert "add --mean M1,M2,... --std S1,S2,..." in result.stderr


def test_a_device_that_compress_would_refuse_is_refused(seen):
    result = dfkd("inspect", seen[0], *LOOK, "--device", "nonsense")
    assert result.exit_code == 2
    assert "--device nonsense" in result.stderr
