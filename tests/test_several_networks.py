"""A checkpoint with several networks: the right one is used, or the user has to choose, never the first by chance."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from command_line import dfkd
from labelled_images import balanced, save_labelled
from loading_helpers import ARCH, SIZE, create, load

import dfkd_cli
from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.loading import architecture

LOOK = ("--arch", ARCH, "--input-size", "1x32x32", "--mean", "0", "--std", "1")
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> tuple[Weights, Weights]:
    """The weights of the network that labels the images, and of another one."""
    right, wrong = (balanced(network, network.fc2, seed, SIZE) for seed, network in enumerate((make(1), make(2))))
    return dict(right.state_dict()), dict(wrong.state_dict())


@pytest.fixture(scope="module")
def data(weights, tmp_path_factory) -> Path:
    network = make(0)
    network.load_state_dict(weights[0])
    return save_labelled(network, tmp_path_factory.mktemp("data"), SIZE, 10)


def make(seed: int) -> Any:
    torch.manual_seed(seed)
    return create(ARCH).eval()


def below(prefix: str, tensors: Weights) -> Weights:
    return {prefix + name: value.clone() for name, value in tensors.items()}


def flat(first: str, second: str):
    """Return a function that joins wrong and right weights in one state dict."""
    return lambda right, wrong: {"state_dict": below(first, wrong) | below(second, right)}


# Name of the right network, and the file as a function of the right and the wrong weights.
SEVERAL: dict[str, Any] = {
    "teacher": flat("student.", "teacher."),
    "model.teacher": flat("model.student.", "model.teacher."),
    "discriminator": lambda right, wrong: {"generator": wrong, "discriminator": right},
    "netD": lambda right, wrong: {"netG": {"state_dict": wrong}, "netD": {"state_dict": right}},
    "encoder_k": lambda right, wrong: {
        "arch": ARCH,
        "state_dict": below("module.encoder_q.", wrong) | below("module.encoder_k.", right),
        "optimizer": {"state": {0: {"momentum": torch.zeros(3)}}},
    },
    "target_encoder": lambda right, wrong: below("online_encoder.module.", wrong) | below("target_encoder.", right),
    "models.1": lambda right, wrong: {"models": [wrong, right]},
    "model_2": lambda right, wrong: below("_orig_mod.model_1.", wrong) | below("_orig_mod.model_2.", right),
    "swa_b": flat("swa_a.", "swa_b."),
    "teacher.net": lambda right, wrong: wrong | below("teacher.net.", right),
}
AVERAGED: dict[str, Any] = {
    "ema_model": flat("model.", "ema_model."),
    "model_ema.module": lambda right, wrong: {
        "model": wrong,
        "model_ema": below("module.", right) | {"n_averaged": right["fc2.bias"][0]},
    },
    "ema_model.module": flat("online_model.", "ema_model.module."),
    "ema": lambda right, wrong: wrong | below("ema.", right),
    "student_ema": lambda right, wrong: {"student": wrong, "student_ema": right},
    "swa_model": flat("net.", "swa_model."),
    "netEMA": lambda right, wrong: {"checkpoint": {"net": below("module.", wrong), "netEMA": right}},
}


def evaluated(path: Path, data: Path, *more: str) -> dict[str, Any]:
    result = dfkd("evaluate", path, "--data", data, "--json", *LOOK, *more)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout) | {"stderr": result.stderr}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_networks_are_refused_until_one_is_named(tmp_path, weights, data, name):
    path = tmp_path / "t.pt"
    torch.save(SEVERAL[name](*weights), path)
    refused = dfkd("evaluate", path, "--data", data, "--json", *LOOK)
    assert refused.exit_code == 2
    assert "contains several networks: " in refused.stderr
    assert name.rpartition(".")[2] in refused.stderr
    assert "choose one with --prefix NAME" in refused.stderr
    assert evaluated(path, data, "--prefix", name)["accuracy"] == 1.0


@pytest.mark.parametrize("name", AVERAGED)
def test_averaged_weights_are_preferred_with_a_note(tmp_path, weights, data, name):
    path = tmp_path / "t.pt"
    torch.save(AVERAGED[name](*weights), path)
    seen = evaluated(path, data)
    assert seen["accuracy"] == 1.0
    assert f"averaged (EMA) weights '{name}' are used" in seen["stderr"]


def test_the_weights_beside_the_averaged_ones_are_still_there(tmp_path, weights, data):
    torch.save(flat("model.", "ema_model.")(*reversed(weights)), tmp_path / "t.pt")
    assert evaluated(tmp_path / "t.pt", data)["accuracy"] < 0.9
    for name in ("model", "model.", "state_dict.model"):
        assert evaluated(tmp_path / "t.pt", data, "--prefix", name)["accuracy"] == 1.0


def test_the_same_in_safetensors(tmp_path, weights, data):
    path = tmp_path / "t.safetensors"
    safetensors.torch.save_file(below("student.", weights[1]) | below("teacher.", weights[0]), path)
    assert dfkd("evaluate", path, "--data", data, *LOOK).exit_code == 2
    assert evaluated(path, data, "--prefix", "teacher")["accuracy"] == 1.0
    safetensors.torch.save_file(below("model.", weights[1]) | below("ema_model.", weights[0]), path)
    assert evaluated(path, data)["accuracy"] == 1.0


def test_two_networks_of_one_file_are_compared(tmp_path, weights, data):
    torch.save({"teacher": weights[0], "student": weights[1]}, tmp_path / "t.pt")
    both = ("--prefix", "student", "--teacher", str(tmp_path / "t.pt"), "--teacher-prefix", "teacher")
    seen = evaluated(tmp_path / "t.pt", data, *both)
    assert seen["teacher_accuracy"] == 1.0
    assert seen["accuracy"] == seen["agreement"] < 0.9


@pytest.mark.parametrize("command", ["inspect", "plan", "compress", "export", "benchmark"])
def test_every_command_refuses_and_takes_the_name(tmp_path, weights, command):
    path = tmp_path / "t.pt"
    torch.save({"teacher": weights[0], "student": weights[1]}, path)
    more = {
        "compress": ["--out", tmp_path / "out"],
        "export": ["--to", "torchscript", "--out", tmp_path / "t.ts"],
        "benchmark": ["--seconds", "0.01"],
    }.get(command, [])
    refused = dfkd(command, path, *LOOK, *more)
    assert (refused.exit_code, "teacher, student" in " ".join(refused.stderr.split())) == (2, True), refused.stderr
    unknown = dfkd(command, path, *LOOK, *more, "--prefix", "critic")
    assert "--prefix critic" in unknown.stderr
    if command in ("inspect", "export", "benchmark"):
        assert dfkd(command, path, *LOOK, *more, "--prefix", "teacher").exit_code == 0


def test_python_takes_the_name(tmp_path, weights):
    torch.save({"teacher": weights[0], "student": weights[1]}, tmp_path / "t.pt")
    facts: Any = {"arch": ARCH, "mean": [0.0], "std": [1.0], "input_size": SIZE}
    with pytest.raises(UsageError, match="teacher, student"):
        dfkd_cli.load(tmp_path / "t.pt", **facts)
    loaded = dfkd_cli.load(tmp_path / "t.pt", prefix="teacher", **facts).state_dict()
    assert any(torch.equal(value, weights[0]["fc2.weight"]) for value in loaded.values())


class TestOneOfSeveralFits:
    def test_another_architecture_beside_it(self, tmp_path, weights, data):
        torch.save({"big": create("lenet5").state_dict(), "small": weights[0]}, tmp_path / "t.pt")
        assert evaluated(tmp_path / "t.pt", data)["accuracy"] == 1.0

    def test_twice_the_same_weights_are_one_network(self, tmp_path, weights, data):
        torch.save({"model": weights[0], "state_dict": below("module.", weights[0])}, tmp_path / "t.pt")
        assert evaluated(tmp_path / "t.pt", data)["accuracy"] == 1.0

    def test_averages_that_lack_weights_are_not_used_and_said_so(self, tmp_path, weights, data):
        average = {name: value for name, value in weights[1].items() if name != "fc2.bias"}
        torch.save({"model": weights[0], "ema": {"decay": 0.9, "shadow": average}}, tmp_path / "t.pt")
        seen = evaluated(tmp_path / "t.pt", data)
        assert seen["accuracy"] == 1.0
        assert "averaged (EMA) weights 'ema.shadow' are not used" in " ".join(seen["stderr"].split())

    def test_one_with_further_layers_beside_it_is_noted(self, tmp_path, weights, data):
        student = below("student.", weights[1]) | {"student.projection.weight": torch.zeros(3, 3)}
        torch.save(student | below("teacher.", weights[0]), tmp_path / "t.pt")
        seen = evaluated(tmp_path / "t.pt", data)
        assert seen["accuracy"] == 1.0
        assert "The network 'teacher' is used" in seen["stderr"]

    def test_a_named_network_that_does_not_fit(self, tmp_path, weights, monkeypatch):
        monkeypatch.setattr(architecture, "closest_architectures", lambda *_: [])  # takes seconds
        torch.save({"big": create("lenet5").state_dict(), "small": weights[0]}, tmp_path / "t.pt")
        with pytest.raises(TeacherError, match=r"conv1.weight is 6x1x5x5 in the file"):
            load(tmp_path / "t.pt", arch=ARCH, prefix="big")

    def test_without_an_architecture_the_closest_is_found_below_a_prefix(self, tmp_path, weights):
        torch.save({"teacher": weights[0], "student": weights[1]}, tmp_path / "t.pt")
        with pytest.raises(UsageError, match=r"closest known: lenet5_half.*"):
            load(tmp_path / "t.pt")

    def test_several_stated_architectures(self, tmp_path, weights):
        content = {
            "teacher": {"arch": "lenet5", "state_dict": create("lenet5").state_dict()},
            "student": {"arch": ARCH, "state_dict": weights[0]},
        }
        torch.save(content, tmp_path / "t.pt")
        with pytest.raises(UsageError, match=r"teacher \(lenet5\), student \(lenet5_half\)"):
            load(tmp_path / "t.pt")
        assert load(tmp_path / "t.pt", prefix="student").origin.arch == ARCH


def test_a_hub_folder_with_several_networks(tmp_path, weights, data):
    cfg = {"input_size": [1, 32, 32], "mean": [0.0], "std": [1.0], "num_classes": 10}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": ARCH, "pretrained_cfg": cfg}))
    safetensors.torch.save_file(
        below("student.", weights[1]) | below("teacher.", weights[0]), tmp_path / "model.safetensors"
    )
    with pytest.raises(UsageError, match="student, teacher"):
        load(tmp_path)
    result = dfkd("evaluate", tmp_path, "--data", data, "--json", "--prefix", "teacher")
    assert json.loads(result.stdout)["accuracy"] == 1.0


def test_pickled_modules_beside_each_other(tmp_path, weights, data):
    right, wrong = make(1), make(2)
    right.load_state_dict(weights[0])
    wrong.load_state_dict(weights[1])
    torch.save({"epoch": 3, "model": wrong, "ema": right}, tmp_path / "t.pt")
    assert evaluated(tmp_path / "t.pt", data, "--trust-pickle")["accuracy"] == 1.0
    torch.save({"teacher": right, "student": wrong}, tmp_path / "t.pt")
    with pytest.raises(UsageError, match="teacher, student"):
        load(tmp_path / "t.pt", trust_pickle=True)
