"""Students that begin as the teacher: what is removed, that it is removed exactly, and training across the change."""

import copy
from typing import Any

import pytest
import torch
from narrowing_networks import (
    CONFIG,
    Attended,
    Concatenated,
    Decoded,
    Excited,
    Gated,
    Grouped,
    Halved,
    Normalised,
    Shared,
    Shuffled,
    Stem,
)
from timm import create_model
from timm.layers.eca import EcaModule
from timm.models.vision_transformer import VisionTransformer
from tiny_methods import deep_module, equal, make, warm, weights
from torch import nn

from dfkd_cli.config.folders import default_folder
from dfkd_cli.errors import UsageError
from dfkd_cli.methods import METHODS
from dfkd_cli.models.lenet import lenet5
from dfkd_cli.models.resnet_cifar import cifar_resnet20
from dfkd_cli.narrowing.dependencies import find_structure
from dfkd_cli.narrowing.gates import Gates
from dfkd_cli.narrowing.order import importance
from dfkd_cli.narrowing.plan import plan_narrowing, shrink, smallest_share
from dfkd_cli.narrowing.share import choose_channels, count_parameters
from dfkd_cli.networks import EagerNetwork
from dfkd_cli.networks.graphs.trainable import TrainableError, trainable_module
from dfkd_cli.networks.layer_sizes import fit_layers
from dfkd_cli.students.from_teacher import parse_share


def size_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class PartlyShortcut(nn.Module):
    """Blocks that add their inputs to the first of their outputs, as in RexNet, and a wide layer in each."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 8, 3), nn.Linear(40, 3)
        sizes = [(count, count + 4) for count in range(8, 40, 4)]
        self.wide = nn.ModuleList(nn.Conv2d(inputs, 32, 1) for inputs, _ in sizes)
        self.narrow = nn.ModuleList(nn.Conv2d(32, outputs, 1) for _, outputs in sizes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.stem(images)
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            new, count = narrow(torch.relu(wide(values))), values.shape[1]
            values = torch.cat([new[:, :count] + values, new[:, count:]], dim=1)
        return self.head(values.mean(dim=(2, 3)))


def vision_transformer() -> VisionTransformer:
    """Two blocks with four heads of five channels."""
    return VisionTransformer(img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=20, depth=2, num_heads=4)


class Standardised(nn.Conv2d):
    """Normalises its filters over their inputs, so that it computes something else without one of them."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return nn.functional.conv2d(images, weight, self.bias)


class Sliced(nn.Module):
    """Uses a number of channels that is written into its code."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(images)).mean(dim=(2, 3))[:, :4])


NETWORKS = {
    "residual": lambda: (deep_module(), (1, 8, 8)),
    "without BatchNorm": lambda: (lenet5(num_classes=10, in_chans=1), (1, 32, 32)),
    "gated by one map": lambda: (Gated(), (1, 8, 8)),
    "attended": lambda: (Attended(), (1, 8, 8)),
    "weights of two layers": lambda: (Shared(), (1, 12, 12)),
    "InstanceNorm": lambda: (Normalised(), (1, 8, 8)),
    "depthwise and gated": lambda: (Excited(), (1, 8, 8)),
    "concatenated": lambda: (Concatenated(), (1, 8, 8)),
    "shuffled": lambda: (Shuffled(), (1, 8, 8)),
    "grouped": lambda: (Grouped(), (1, 8, 8)),
    "transposed": lambda: (Decoded(), (1, 8, 8)),
    "attention": lambda: (vision_transformer(), (1, 8, 8)),
    "option A": lambda: (cifar_resnet20(num_classes=10), (3, 32, 32)),
}


@pytest.fixture(params=NETWORKS)
def network(request) -> tuple[nn.Module, torch.Tensor]:
    """A network with BatchNorm statistics and scales that differ between channels, and images."""
    torch.manual_seed(0)
    module, size = NETWORKS[request.param]()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval(), torch.randn(4, *size)


@pytest.mark.parametrize("share", [0.75, 0.5, 0.35])
def test_a_network_with_closed_gates_is_the_network_without_the_channels(network, share):
    module, images = network
    before = weights(module)
    plan = plan_narrowing(module, images[:2], share, CONFIG)
    assert equal(before, weights(module))
    gates = Gates(module, plan.structure, plan.removal, overlap=0.2)
    gates.set(1.0)
    small = copy.deepcopy(module)
    with torch.no_grad():
        expected = module(images)
        gates.remove()
        for layer in small.modules():
            layer._forward_pre_hooks.clear()
        shrink(small, plan.gone)
        torch.testing.assert_close(small(images), expected, rtol=1e-4, atol=1e-5)
        assert (module(images) - expected).abs().max() > 1e-3


def test_the_student_has_at_most_its_share_and_no_channel_fewer_than_that_needs(network):
    module, images = network
    structure = find_structure(module, images)
    removal = choose_channels(module, structure, 0.5, "response")
    small = copy.deepcopy(module)
    shrink(small, plan_narrowing(module, images, 0.5, CONFIG).gone)
    assert size_of(small) == count_parameters(module, structure, removal) <= 0.5 * size_of(module)
    assert count_parameters(module, structure, removal[:-1]) > 0.5 * size_of(module)


def test_gates_close_one_channel_after_another():
    module = deep_module()
    plan = plan_narrowing(module, torch.rand(2, 1, 8, 8), 0.6, CONFIG)
    gates = Gates(module, plan.structure, plan.removal, overlap=0.25)
    progress = [index / 20 for index in range(21)]
    sums = []
    for at in progress:
        gates.set(at)
        factors = torch.cat(
            [factor[start.isfinite()] for factor, start in zip(gates.factors, gates.starts, strict=True)]
        )
        sums.append(factors.sum().item())
        assert factors.min() >= 0
        assert factors.max() <= 1
    assert sums[0] == len(plan.removal)
    assert sums[-1] == 0
    assert sums == sorted(sums, reverse=True)
    gates.set(0.5)
    assert 0 < sum(((factor > 0) & (factor < 1)).sum() for factor in gates.factors) < len(plan.removal)


def test_inner_channels_go_before_those_of_residual_connections():
    module = deep_module()
    structure = find_structure(module, torch.rand(2, 1, 8, 8))
    inner = [place for place, group in enumerate(structure.groups) if group.inner]
    assert {structure.groups[place].root for place in inner} == {"3.widen"}
    assert {place for place, _ in choose_channels(module, structure, 0.5, "response")} == set(inner)
    assert {place for place, _ in choose_channels(module, structure, 0.12, "response")} > set(inner)


def test_scores_of_classes_and_very_narrow_layers_go_last():
    module = create_model("espnet_p2_q8", num_classes=9).eval()
    structure = find_structure(module, torch.rand(2, 3, 32, 32))
    scarce = {place for place, group in enumerate(structure.groups) if group.scarce}
    roots = {structure.groups[place].root for place in scarce}
    assert {"encoder.classifier.conv", "level3_C.conv", "up_l2.0", "combine_l2_l3.1.c1.conv"} <= roots
    assert "encoder.level3.0.c1.conv" not in roots
    removal = [place for place, _ in choose_channels(module, structure, 0.0, "response")]
    first = min(order for order, place in enumerate(removal) if place in scarce)
    assert set(removal[first:]) <= scarce
    assert set(removal[:first]).isdisjoint(scarce)


def test_attention_heads_and_widths_of_classifiers_are_not_scarce():
    module = create_model("vit_tiny_patch16_224", num_classes=16, img_size=32, depth=1).eval()
    structure = find_structure(module, torch.rand(2, 3, 32, 32))
    assert not any(group.scarce for group in structure.groups)


def test_importance_is_the_expected_response_times_the_reading_weights():
    module = deep_module()
    norm = module[3].norm  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
    nn.init.uniform_(norm.weight, 0.2, 2.0)
    nn.init.uniform_(norm.bias, -1.0, 1.0)
    structure = find_structure(module, torch.rand(2, 1, 8, 8))
    (group,) = [group for group in structure.groups if group.inner]
    samples = torch.randn(200_000, 1, dtype=torch.float64) * norm.weight.double() + norm.bias.double()
    reading = module[3].narrow.weight.double().flatten(1).norm(dim=0)  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
    expected = samples.clamp_min(0).mean(dim=0) * reading
    found = importance(module, group, structure.calls, "response")
    torch.testing.assert_close(found, expected.detach(), rtol=0.02, atol=0.002)


def test_importance_by_weights_ignores_batchnorm_and_the_random_order_ignores_everything():
    module = deep_module()
    structure = find_structure(module, torch.rand(2, 1, 8, 8))
    (group,) = [group for group in structure.groups if group.inner]
    block: Any = module[3]  # pyright: ignore[reportIndexIssue]
    writing, reading = block.widen.weight.double().flatten(1).norm(dim=1), block.narrow.weight.double().flatten(1)
    expected = writing.detach() * reading.detach().norm(dim=0)
    drawn = importance(module, group, structure.calls, "random")
    nn.init.uniform_(block.norm.weight, 0.2, 2.0)
    torch.testing.assert_close(importance(module, group, structure.calls, "weights"), expected)
    nn.init.uniform_(block.widen.weight)
    assert torch.equal(importance(module, group, structure.calls, "random"), drawn)
    assert len(drawn.unique()) == group.size


def test_a_share_that_cannot_be_reached_names_the_smallest(network):
    module, images = network
    with pytest.raises(UsageError, match=r"--student 0\.001: the smallest possible share of this network is 0\.\d+"):
        plan_narrowing(module, images, 0.001, CONFIG)


def test_a_network_that_depends_on_its_sizes_is_left_alone_or_refused():
    module = Sliced().eval()
    structure = find_structure(module, torch.rand(2, 1, 8, 8))
    assert any("slices" in reason for reason in structure.fixed)
    plan = plan_narrowing(module, torch.rand(2, 1, 8, 8), 0.6, CONFIG)
    assert {structure.groups[place].root for place, _ in plan.removal} == {"first"}


def test_a_grouped_convolution_loses_whole_groups():
    module = Grouped().eval()
    small: Any = copy.deepcopy(module)
    shrink(small, plan_narrowing(module, torch.rand(2, 1, 8, 8), 0.5, CONFIG).gone)
    assert small.grouped.groups < 4
    assert small.grouped.weight.shape == (10 * small.grouped.groups, 6, 3, 3)
    assert small.widen[0].out_channels == 6 * small.grouped.groups
    assert small.doubled.weight.shape == (2 * small.doubled.groups, 1, 3, 3)
    assert small.stem[1].num_channels == 4 * small.stem[1].num_groups


def test_attention_loses_whole_heads_and_a_saved_student_has_the_others():
    torch.manual_seed(0)
    module, images = vision_transformer().eval(), torch.rand(2, 1, 8, 8)
    small: Any = copy.deepcopy(module)
    shrink(small, plan_narrowing(module, images, 0.4, CONFIG).gone)
    heads = [block.attn.num_heads for block in small.blocks]
    assert max(heads) < 4
    assert [block.attn.qkv.weight.shape for block in small.blocks] == [(15 * count, 20) for count in heads]
    loaded = vision_transformer().eval()
    fit_layers(loaded, small.state_dict())
    loaded.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert torch.equal(loaded(images), small(images))


def test_channels_without_which_a_network_computes_something_else_stay():
    torch.manual_seed(0)
    first, standardised = nn.Conv2d(1, 8, 3), Standardised(8, 24, 1)
    module = nn.Sequential(
        first, nn.ReLU(), standardised, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3)
    ).eval()
    plan = plan_narrowing(module, torch.rand(2, 1, 8, 8), 0.6, CONFIG)
    assert {plan.structure.groups[place].root for place, _ in plan.removal} == {"2"}
    assert plan.structure.fixed == ("0: without these channels the network computes something else",)
    smallest, fixed = smallest_share(module, torch.rand(2, 1, 8, 8), "response")
    assert 0.25 < smallest < 0.35
    assert fixed == plan.structure.fixed


def test_channels_that_are_sliced_and_joined_again_stay():
    plan = plan_narrowing(PartlyShortcut().eval(), torch.rand(2, 1, 8, 8), 0.5, CONFIG)
    assert {plan.structure.groups[place].root for place, _ in plan.removal} == {f"wide.{place}" for place in range(8)}
    assert any("the network slices these channels" in reason for reason in plan.structure.fixed)


def test_channels_before_an_operation_that_changes_their_number_stay():
    plan = plan_narrowing(Halved().eval(), torch.randn(2, 1, 8, 8), 0.6, CONFIG)
    assert plan.structure.fixed == ("stem.0: an operation changes the number of these channels",)
    assert {group.root for group in plan.structure.groups} == {"last"}
    with pytest.raises(UsageError, match="an operation changes the number of these channels"):
        plan_narrowing(Halved().eval(), torch.randn(2, 1, 8, 8), 0.1, CONFIG)


def test_layers_that_share_a_weight_still_do():
    module = Shared().eval()
    shrink(module, plan_narrowing(module, torch.randn(2, 1, 12, 12), 0.2, CONFIG).gone)
    assert module.near.weight is module.far.weight
    assert len(module.near.weight) < 16


def test_a_layer_without_tensors_states_its_channels():
    module = Normalised().eval()
    shrink(module, plan_narrowing(module, torch.randn(2, 1, 8, 8), 0.5, CONFIG).gone)
    stem: Any = module.stem
    assert stem[1].num_features == stem[0].out_channels < 16


def test_channels_that_a_convolution_mixes_as_positions_stay():
    module = nn.Sequential(
        nn.Conv2d(1, 12, 3),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3),
        EcaModule(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()
    plan = plan_narrowing(module, torch.rand(2, 1, 8, 8), 0.5, CONFIG)
    assert {plan.structure.groups[place].root for place, _ in plan.removal} == {"0"}
    assert plan.structure.fixed == ("2: without these channels the network computes something else",)


def test_a_network_without_a_channel_that_can_go_is_refused_in_words():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(UsageError, match="no channel of this network can go; use the name of an architecture"):
        plan_narrowing(module, torch.rand(2, 1, 8, 8), 0.5, CONFIG)


def test_a_network_whose_channels_cannot_be_followed_is_refused_in_words(monkeypatch):
    def fail(module, images):
        raise RuntimeError("no rule for this operation")

    monkeypatch.setattr("dfkd_cli.narrowing.plan.find_structure", fail)
    with pytest.raises(UsageError, match=r"cannot be followed \(no rule for this operation\)"):
        plan_narrowing(deep_module(), torch.rand(2, 1, 8, 8), 0.5, CONFIG)


def test_a_network_that_cannot_be_copied_is_refused_in_words():
    module = deep_module()
    module.kept = torch.rand(2, requires_grad=True) * 2  # not a leaf
    with pytest.raises(TrainableError, match="cannot be copied"):
        trainable_module(EagerNetwork(module, input_size=(1, 8, 8)), (1, 8, 8))


@pytest.mark.parametrize(
    ("text", "share"),
    [("0.5", 0.5), ("1/4", 0.25), ("25%", 0.25), (" .3 ", 0.3), ("cifar_resnet8", None), ("timm:resnet18", None)],
)
def test_a_share_is_told_from_a_name(text, share):
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["0", "1", "1.5", "-0.5", "100%", "3/2", "0%"])
def test_a_share_is_between_0_and_1(text):
    with pytest.raises(UsageError, match="between 0 and 1"):
        parse_share(text)


@pytest.mark.parametrize(
    ("teacher", "student", "folder"),
    [
        ("a/resnet20.th", "0.5", "resnet20-0.5"),
        ("teacher.pth.tar", "25%", "teacher-25"),
        ("timm:resnet34", "1/4", "resnet34-1-4"),
        ("hf-hub:owner/name", "resnet18", "name-resnet18"),
        ("../..", "0.5", "teacher-0.5"),
    ],
)
def test_the_folder_of_a_run_is_named_after_teacher_and_student(tmp_path, monkeypatch, teacher, student, folder):
    monkeypatch.chdir(tmp_path)
    assert str(default_folder(teacher, student)) == folder
    (tmp_path / folder).mkdir()
    (tmp_path / f".{folder}-2.unfinished").mkdir()
    assert str(default_folder(teacher, student)) == f"{folder}-3"


HALFWAY = "narrowing.fade=0.5"


@pytest.mark.parametrize("norm", [True, False], ids=["batchnorm", "no batchnorm"])
@pytest.mark.parametrize("name", METHODS)
class TestTraining:
    """Every method across the change of shape, after three of six steps."""

    def test_ends_with_the_planned_size(self, name, norm):
        loop = make(name, HALFWAY, norm=norm, share=0.5)
        whole = loop.setting.student.parameter_count()
        metrics = list(loop.events())[-1].metrics
        assert loop.reshaping.removed
        assert 0.3 * whole < loop.setting.student.parameter_count() <= 0.5 * whole
        assert torch.tensor(metrics["blocks"]).isfinite()

    @pytest.mark.parametrize("step", [2, 4])
    def test_resumes_bit_for_bit_before_and_after_the_change(self, name, norm, step):
        loop = make(name, HALFWAY, norm=norm, share=0.5)
        events = loop.events()
        next(event for event in events if event.step >= step)
        assert loop.reshaping.removed == (step == 4)
        state = copy.deepcopy(loop.state_dict())
        list(events)
        resumed = make(name, HALFWAY, norm=norm, seed=5, share=0.5)
        resumed.load_state_dict(state)
        list(resumed.events())
        assert equal(weights(loop.setting.student), weights(resumed.setting.student))

    def test_goes_back_to_a_checkpoint_from_before_the_change(self, name, norm):
        loop = make(name, HALFWAY, norm=norm, share=0.5)
        events = loop.events()
        next(event for event in events if event.step >= 2)
        state = copy.deepcopy(loop.state_dict())
        list(events)
        expected = weights(loop.setting.student)
        loop.load_state_dict(state)
        list(loop.events())
        assert equal(expected, weights(loop.setting.student))


@pytest.mark.parametrize("name", METHODS)
class TestLastChannels:
    """What a method makes for the student's embedding or last feature map follows the change of shape."""

    @pytest.mark.parametrize("fade", [0.0, 0.5])
    def test_go_with_every_method(self, name, fade):
        loop = make(name, f"narrowing.fade={fade}", share=0.4, plain=True)
        size = loop.setting.probe()[1].embedding.shape[1]
        assert list(loop.events())[-1].step == 6
        assert loop.setting.probe()[1].embedding.shape[1] < size

    @pytest.mark.parametrize("step", [2, 4])
    def test_resume_bit_for_bit(self, name, step):
        loop = make(name, HALFWAY, share=0.4, plain=True)
        events = loop.events()
        next(event for event in events if event.step >= step)
        state = copy.deepcopy(loop.state_dict())
        list(events)
        expected = weights(loop.setting.student)
        resumed = make(name, HALFWAY, seed=5, share=0.4, plain=True)
        for again in (resumed, loop):  # in another process, and after a divergence
            again.load_state_dict(copy.deepcopy(state))
            list(again.events())
            assert equal(expected, weights(again.setting.student))


def test_channels_can_go_at_once_and_the_rate_begins_at_0_all_the_same():
    loop = warm(make("ssd", "narrowing.fade=0", share=0.5))
    loop.student_step(0.0)
    assert loop.reshaping.removed
    assert [group["lr"] for group in loop.optimizer.param_groups] == [0.0, 0.0]
    loop.student_step(0.5)
    assert loop.optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * loop.reshaping.rate * loop.config.muon_lr)


def test_the_average_begins_anew_with_fitted_weights():
    fitted, plain = (make("ssd", "narrowing.fade=1", f"narrowing.refit={refit}", share=0.5) for refit in (True, False))
    for loop in (fitted, plain):
        list(loop.events())
    name = "network.module.3.narrow.weight"
    assert not torch.equal(weights(fitted.setting.student)[name], weights(plain.setting.student)[name])


def test_layers_are_fitted_when_channels_go_unless_that_is_switched_off():
    students = []
    for refit in ("true", "false"):
        loop = warm(make("ssd", "narrowing.fade=0", f"narrowing.refit={refit}", share=0.5))
        loop._remove_channels(loop.reshaping)
        students.append(weights(loop.setting.student))
    changed = {name for name in students[0] if not torch.equal(students[0][name], students[1][name])}
    assert changed == {"network.module.3.narrow.weight", "network.module.3.narrow.bias"}


def test_a_run_whose_fading_ends_with_it_removes_the_channels_in_the_end():
    loop = make("ssd", "narrowing.fade=1", share=0.5)
    whole = loop.setting.student.parameter_count()
    list(loop.events())
    assert loop.setting.student.parameter_count() <= 0.5 * whole


def test_momentum_and_average_keep_what_they_hold_of_the_channels_that_stay():
    loop = warm(make("ssd", HALFWAY, "narrowing.refit=false", share=0.5))
    for _ in range(2):
        loop.student_step(0.2)
    names = {parameter: name.removeprefix("0.") for name, parameter in loop.trained.named_parameters()}
    state = {names[parameter]: shaped(parameter, entries) for parameter, entries in loop.optimizer.state.items()}
    assert len(state) == len(names)
    expected, expected_means = loop.reshaping.narrowed(state), loop.reshaping.narrowed(loop.average.named())
    loop._remove_channels(loop.reshaping)
    names = {parameter: name.removeprefix("0.") for name, parameter in loop.trained.named_parameters()}
    assert len(loop.optimizer.state) == len(state)
    for parameter, entries in loop.optimizer.state.items():
        assert torch.equal(shaped(parameter, entries), expected[names[parameter]])
    assert equal(expected_means, loop.average.named())


def shaped(parameter: torch.Tensor, entries: dict) -> torch.Tensor:
    """The first tensor of an optimizer's state that has the shape of its parameter: the momentum."""
    return next(
        value for value in entries.values() if isinstance(value, torch.Tensor) and value.shape == parameter.shape
    )


def test_a_residual_connection_that_begins_before_a_pooling_is_no_inner_one():
    groups = find_structure(Stem(32).eval(), torch.randn(2, 1, 8, 8)).groups
    assert sorted((len(group.members), group.inner) for group in groups) == [(3, True), (3, True), (7, False)]


@pytest.mark.parametrize(("inside", "whole"), [(32, True), (8, False)])
def test_bottlenecks_and_what_is_around_them_lose_equal_shares(inside, whole):
    torch.manual_seed(0)
    module = Stem(inside).eval()
    plan = plan_narrowing(module, torch.randn(2, 1, 8, 8), 0.6, CONFIG)
    shrink(module, plan.gone)
    sizes = {name: len(value) for name, value in module.named_parameters()}
    assert (sizes["stem.0.weight"] == 32) == whole
    assert sizes["blocks.0.0.weight"] < inside
