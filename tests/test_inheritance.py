"""The layers of the teacher that the student is initialised with."""

import copy
import json
import sys
from typing import Any

import pytest
import timm
import torch
from command_line import TINY_RUN
from torch import Tensor, nn

import dfkd_cli.models  # noqa: F401 -- adds the reference networks to timm's registry
from dfkd_cli.cli import main
from dfkd_cli.networks import EagerNetwork, ExportedNetwork, ScriptNetwork
from dfkd_cli.students.inheritance import inherit_layers

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _trained(name: str) -> Any:
    """Return a network all of whose tensors, BatchNorm's statistics and counters included, differ from a new one's."""
    module = timm.create_model(name, num_classes=10)
    module.train()
    for _ in range(2):
        module(IMAGES)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.9).add_(0.01)
    return module.eval()


def _values(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


class Wrapped(nn.Module):
    """A network that normalises its input itself, as deployed files often do."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body((x - 0.5) / 0.25)


def _as(form: str, module: nn.Module) -> nn.Module:
    match form:
        case "eager":
            return EagerNetwork(module, input_size=(3, 16, 16), num_classes=10)
        case "wrapped":
            return _as("traced", Wrapped(module))
        case "traced":
            traced: Any = torch.jit.trace(module, IMAGES)
            return ScriptNetwork(traced, input_size=(3, 16, 16), num_classes=10)
        case "scripted":
            return ScriptNetwork(torch.jit.script(module), input_size=(3, 16, 16), num_classes=10)
        case _:
            return ExportedNetwork(torch.export.export(module, (IMAGES,)), input_size=(3, 16, 16), num_classes=10)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
@pytest.mark.parametrize("form", ["eager", "traced", "scripted", "exported", "wrapped"])
def test_layers_of_equal_name_and_shape_are_copied_from_every_form_of_teacher(form):
    teacher, student = _trained("cifar_resnet20"), timm.create_model("cifar_resnet8", num_classes=10)
    expected = {name: teacher.state_dict()[name] for name in student.state_dict()}
    assert inherit_layers(student, _as(form, teacher)) == sum(p.numel() for p in student.parameters())
    for name, value in student.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_student_of_other_widths_is_not_changed():
    student = timm.create_model("lenet5_half", num_classes=10, in_chans=3)
    before = _values(student)
    assert inherit_layers(student, _trained("cifar_resnet20")) == 0
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_a_layer_is_copied_whole_or_not_at_all():
    student, teacher = nn.Linear(8, 10), nn.Linear(16, 10)
    before = _values(student)
    assert inherit_layers(student, teacher) == 0  # the biases alone would fit
    assert torch.equal(student.bias, before["bias"])


def test_layers_that_the_teacher_lacks_are_not_changed():
    student, teacher = _trained("cifar_resnet20"), timm.create_model("cifar_resnet8", num_classes=10)
    before = _values(student)
    assert inherit_layers(student, teacher) == sum(p.numel() for p in teacher.parameters())
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(teacher.state_dict())


def test_the_prefix_with_which_most_parameters_fit_is_used():
    bodies = {"small": nn.Sequential(nn.Linear(4, 4)), "large": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))}
    student = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    inherit_layers(student, nn.ModuleDict(bodies))
    assert all(torch.equal(*pair) for pair in zip(student.parameters(), bodies["large"].parameters(), strict=True))


def test_the_teacher_shares_no_memory_with_its_student():
    teacher, student = _trained("cifar_resnet20"), timm.create_model("cifar_resnet8", num_classes=10)
    before = _values(teacher)
    inherit_layers(student, teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize(("init", "notes"), [("teacher", 1), ("random", 0)])
def test_train_init_decides_and_the_report_says_so(monkeypatch, tmp_path, init, notes):
    torch.save(_trained("cifar_resnet20").state_dict(), tmp_path / "teacher.pt")
    network = ["--arch", "cifar_resnet20", "--student", "cifar_resnet8", "--input-size", "3x16x16"]
    files = [str(tmp_path / "teacher.pt"), "--out", str(tmp_path / "out")]
    arguments = ["dfkd", "compress", *files, *network, *TINY_RUN, "--set", f"train.init={init}"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert sum("75,290 of its 75,290 parameters" in note for note in report["notes"]) == notes
