"""Tests of archives from outside: fixed batches, training mode, several outputs, frozen, wrong size, NaN."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hostile_tools import edit_config
from loading_helpers import assert_same, export, load
from torch import nn

from dfkd_cli.errors import DfkdError, TeacherError, UsageError
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.networks import EagerNetwork, ExportedNetwork, ScriptNetwork, check_forward, input_gradient_reaches
from dfkd_cli.networks.fixed_batch import find_batch_size
from dfkd_cli.networks.forward_error import ForwardError
from dfkd_cli.networks.outputs import pick_logits

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
SIZE = (1, 8, 8)


RETURNS = {
    "tensor": lambda maps, logits: logits,
    "tuple": lambda maps, logits: (maps, logits),
    "twins": lambda maps, logits: {"first": logits, "second": logits * 2},
}


class Small(nn.Module):
    """Convolution, BatchNorm, dropout, linear; its view contains the constant `batch`, as after tracing."""

    def __init__(self, batch: int = -1, returns: str = "tensor"):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.get_buffer("running_mean"), 0.1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(64, 10)
        self.batch = batch
        self.returns = returns

    def forward(self, x):
        maps = torch.relu(self.norm(self.conv(x)))
        rows = maps.flatten(1) if self.batch < 0 else maps.view(self.batch, -1)
        logits = self.head(self.drop(rows))
        return RETURNS[self.returns](maps, logits)


def _images(batch: int) -> torch.Tensor:
    return torch.randn(batch, *SIZE, generator=torch.Generator().manual_seed(1))


def _archive(module: nn.Module, form: str, batch: int, **options) -> ScriptNetwork | ExportedNetwork:
    if form == "exported":
        return ExportedNetwork(torch.export.export(module, (_images(batch),)), **options)
    traced: Any = torch.jit.trace(module, _images(batch), strict=False)
    return ScriptNetwork(traced, input_size=SIZE, **options)


@pytest.mark.parametrize("form", ["traced", "exported"])
@pytest.mark.parametrize("batch", [8, 16, 21])
def test_a_fixed_batch_size_is_found_and_other_batches_are_padded(form, batch):
    network = _archive(Small(batch=16).eval(), form, 16)
    expected = EagerNetwork(Small().eval(), input_size=SIZE).observe(_images(batch))
    outputs = network.observe(_images(batch))
    assert network.batch_size == 16
    torch.testing.assert_close(network(_images(batch)), expected.logits)
    for part, reference in zip(outputs, expected, strict=True):
        torch.testing.assert_close(part, reference)


def test_impossible_batch_sizes_are_not_tried():
    def call(images):
        return images.view(8, -1)

    assert find_batch_size(call, _images, [-1, 0, 8]) == 8


@pytest.mark.parametrize("size", [0.008, 0.3])
def test_random_outputs_do_not_count_as_dependence_on_the_order_of_the_images(size):
    rng = torch.Generator().manual_seed(0)

    def call(images):
        rows = images.flatten(1)
        return rows + size * torch.randn(rows.shape, generator=rng)

    assert {find_batch_size(call, _images, []) for _ in range(20)} == {None}


@pytest.mark.parametrize("size", [0.0, 0.003])
def test_a_network_that_mixes_its_images_fails(size):
    def call(images):
        rows = images.flatten(1)
        return rows.roll(1, 0).cumsum(0) + size * torch.randn(rows.shape)

    with pytest.raises(TeacherError, match="order of the images"):
        find_batch_size(call, _images, [])


@pytest.mark.parametrize("form", ["traced", "exported"])
def test_a_fixed_batch_size_too_small_for_statistics_is_refused_with_an_alternative(form):
    with pytest.raises(TeacherError, match=r"batch size 2 only(.|\n)*Dim\.DYNAMIC"):
        _archive(Small(batch=2).eval(), form, 2)


@pytest.mark.parametrize("form", ["traced", "exported"])
def test_a_network_recorded_at_one_batch_size_that_works_at_all_is_not_limited(form):
    network = _archive(Small().eval(), form, 1)
    assert network.batch_size is None
    torch.testing.assert_close(network(_images(5)), Small().eval()(_images(5)))


@pytest.mark.parametrize("form", ["traced", "exported"])
def test_training_mode_is_switched_off_and_noted(form):
    module = Small()
    network = _archive(module, form, 4)
    expected = EagerNetwork(module.eval(), input_size=SIZE)
    torch.testing.assert_close(network(_images(4)), expected(_images(4)))
    torch.testing.assert_close(network.norm_statistics, expected.norm_statistics)
    assert any("training mode" in note for note in network.notes)


def test_an_export_whose_training_mode_cannot_be_switched_off_is_refused():
    program = torch.export.export(Small(), (_images(4),)).run_decompositions()
    with pytest.raises(TeacherError, match=r"training mode(.|\n)*model\.eval\(\)"):
        ExportedNetwork(program)


@pytest.mark.parametrize("form", ["traced", "exported"])
def test_the_logits_are_the_only_tensor_of_their_shape(form):
    network = _archive(Small(returns="tuple").eval(), form, 4)
    torch.testing.assert_close(network(_images(4)), Small().eval()(_images(4)))


class Odd(nn.Module):
    """The first weight with four dimensions has other channels than the images; a mask contains -infinity."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.unused = nn.Conv2d(7, 2, 1)
        self.conv = nn.Conv2d({"repeated": 3, "shuffled": 4, "masked": 1}[kind], 4, 2)
        self.head = nn.Linear(4, 10)
        self.register_buffer("mask", torch.full((10,), -torch.inf) if kind == "masked" else torch.zeros(10))

    def forward(self, x):
        x = {"repeated": x.expand(-1, 3, -1, -1), "shuffled": F.pixel_unshuffle(x, 2), "masked": x}[self.kind]
        return self.head(torch.relu(self.conv(x)).mean((2, 3))) + torch.exp(self.get_buffer("mask"))


@pytest.mark.parametrize("kind", ["repeated", "shuffled", "masked"])
def test_unusual_weights_of_a_sound_network_are_accepted(tmp_path, kind):
    module = Odd(kind).eval()
    torch.jit.save(torch.jit.trace(module, _images(4)), tmp_path / "teacher.pt")
    options = LoadOptions(input_size=SIZE, mean=(0.0,), std=(1.0,))
    torch.testing.assert_close(load_classifier(str(tmp_path / "teacher.pt"), options)(_images(4)), module(_images(4)))


@pytest.mark.parametrize("compiled", ["traced", "scripted"])
def test_layers_can_have_the_names_of_forbidden_operators(tmp_path, compiled):
    module = nn.Sequential(OrderedDict(ops=nn.Conv2d(1, 4, 3), save=nn.Flatten(), load=nn.Linear(144, 10))).eval()
    archive: Any = torch.jit.script(module) if compiled == "scripted" else torch.jit.trace(module, _images(4))
    torch.jit.save(archive, tmp_path / "teacher.pt")
    options = LoadOptions(input_size=SIZE, mean=(0.0,), std=(1.0,))
    loaded = load_classifier(str(tmp_path / "teacher.pt"), options)
    torch.testing.assert_close(loaded(_images(4)), module(_images(4)))


@pytest.mark.parametrize("form", ["traced", "exported"])
def test_output_names_the_logits(form):
    network = _archive(Small(returns="twins").eval(), form, 4, output="second")
    torch.testing.assert_close(network(_images(4)), 2 * Small().eval()(_images(4)))


@pytest.mark.parametrize("form", ["traced", "exported"])
def test_two_candidates_are_listed(form):
    with pytest.raises(UsageError, match=r"first \[\d+, 10\], second \[\d+, 10\].*--output"):
        _archive(Small(returns="twins").eval(), form, 4)


def test_the_number_of_classes_distinguishes_logits_from_an_embedding():
    returned = (torch.zeros(2, 64), torch.ones(2, 10))
    assert pick_logits(returned, batch=2, num_classes=10) is returned[1]
    assert pick_logits(returned, batch=2, output="0") is returned[0]


@pytest.mark.parametrize(
    ("returned", "output"), [((torch.zeros(2, 10),), "1"), (torch.zeros(2, 10), "0"), ("text", None), ({}, None)]
)
def test_outputs_that_cannot_be_used_are_refused(returned, output):
    with pytest.raises(DfkdError, match="network returns") as refused:
        pick_logits(returned, batch=2, output=output)
    assert isinstance(refused.value, UsageError if output else TeacherError)


@pytest.mark.parametrize(
    ("shapes", "logits"),
    [
        ([(2, 10), (2, 64, 1, 1)], 0),  # beside the embedding that it was computed from
        ([(2, 64, 1, 1), (2, 10)], 1),
        ([(2, 10), (2,)], 0),  # beside a confidence
        ([(2, 10, 1, 1), (2, 8, 4, 4)], 0),
        ([(2, 8, 4, 4), (2,)], 1),
    ],
)
def test_the_logits_beside_other_outputs(shapes, logits):
    returned = tuple(torch.rand(shape) for shape in shapes)
    assert torch.equal(pick_logits(returned, batch=2).flatten(), returned[logits].flatten())


def test_a_last_convolution_beside_a_wider_embedding_is_not_guessed():
    returned = (torch.rand(2, 10, 1, 1), torch.rand(2, 64))
    with pytest.raises(UsageError, match=r"choose the logits with --output"):
        pick_logits(returned, batch=2)
    assert pick_logits(returned, batch=2, num_classes=10).shape == (2, 10)
    assert pick_logits((torch.rand(2), torch.rand(2, 64)), batch=2, num_classes=2).shape == (2, 1)


def test_an_output_named_logits_needs_no_flag():
    returned = {"probabilities": torch.zeros(2, 10), "logits": torch.ones(2, 10), "features": torch.zeros(2, 10)}
    assert pick_logits(returned, batch=2) is returned["logits"]
    assert pick_logits(returned, batch=2, output="features") is returned["features"]


def test_a_frozen_archive_keeps_its_values_and_moves():
    small, first = Small(), nn.BatchNorm2d(1)
    nn.init.constant_(first.get_buffer("running_mean"), 0.2)
    nn.init.constant_(first.get_buffer("running_var"), 0.3)
    module = nn.Sequential(first, small).eval()  # freezing folds the second BatchNorm, not the first
    traced: Any = torch.jit.trace(module, _images(4))
    network = ScriptNetwork(torch.jit.freeze(traced), input_size=SIZE).double()
    torch.testing.assert_close(network(_images(4).double()), module.double()(_images(4).double()), rtol=1e-5, atol=1e-6)
    assert [statistics.mean.dtype for statistics in network.norm_statistics] == [torch.float64]
    folded = sum(value.numel() for value in small.norm.parameters())
    assert _count(network) == _count(module) - folded


def _count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


class Branching(nn.Module):
    """BatchNorm in a loop and in a data-dependent branch."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.other = nn.BatchNorm2d(1)
        self.head = nn.Conv2d(1, 10, 1)

    def forward(self, x):
        for _ in range(int(x.shape[2]) // 4):
            x = self.norm(x) + 1
        if bool(x.mean() > -1000):
            x = F.relu(self.other(x))
        return self.head(x).mean((2, 3))


def test_layers_in_loops_and_branches_are_observed_in_the_order_of_execution():
    module = Branching().eval()
    scripted = ScriptNetwork(torch.jit.script(module), input_size=SIZE)
    expected = EagerNetwork(module, input_size=SIZE)
    assert len(scripted.norm_statistics) == 3
    for part, reference in zip(scripted.observe(_images(4)), expected.observe(_images(4)), strict=True):
        torch.testing.assert_close(part, reference)


def test_a_graph_that_cannot_be_rewritten_still_gives_logits(monkeypatch):
    def fail(module):
        raise RuntimeError("unknown operation")

    monkeypatch.setattr("dfkd_cli.networks.torchscript.network.evaluation_graph", fail)
    network = _archive(Small().eval(), "traced", 4)
    torch.testing.assert_close(network.observe(_images(4)).logits, Small().eval()(_images(4)))
    assert network.norm_statistics == network.observe(_images(4)).norm_inputs == ()
    assert "unknown operation" in network.notes[0]


@pytest.mark.parametrize("size", [(3, 8, 8), (1, 16, 16)])
def test_a_wrong_input_size_is_named(size):
    traced: Any = torch.jit.trace(Small().eval(), _images(2))
    with pytest.raises(ForwardError, match=rf"fails on noise of {size[0]}x{size[1]}x{size[2]}: "):
        ScriptNetwork(traced, input_size=size)
    with pytest.raises(ForwardError, match=rf"fails on noise of {size[0]}x{size[1]}x{size[2]}: "):
        check_forward(EagerNetwork(Small().eval()), size)
    with pytest.raises(TeacherError, match=r"--input-size.*exported for images of 1x8x8"):
        _archive(Small().eval(), "exported", 4, input_size=size)


def test_an_archive_that_needs_more_than_images_is_refused():
    class Two(nn.Module):
        def forward(self, images, mask):
            return images * mask

    with pytest.raises(TeacherError, match="mask"):
        ScriptNetwork(torch.jit.script(Two()), input_size=SIZE)
    program = torch.export.export(Two(), (_images(2), _images(2)))
    with pytest.raises(TeacherError, match="2 inputs"):
        ExportedNetwork(program)


@pytest.mark.parametrize("form", ["eager", "traced", "exported"])
def test_check_forward_counts_the_outputs(form):
    module = Small().eval()
    network = EagerNetwork(module) if form == "eager" else _archive(module, form, 4)
    assert check_forward(network, SIZE).outputs == 10
    assert input_gradient_reaches(network, SIZE)


@pytest.mark.parametrize("form", ["eager", "traced", "exported"])
def test_damaged_weights_are_an_error(form):
    module = Small().eval()
    nn.init.constant_(module.head.weight, torch.nan)
    network = EagerNetwork(module) if form == "eager" else _archive(module, form, 4)
    with pytest.raises(TeacherError, match="not finite"):
        check_forward(network, SIZE)


def test_a_network_without_class_scores_is_an_error():
    with pytest.raises(TeacherError, match=r"returns \[4, 4, 16\]"):
        check_forward(EagerNetwork(nn.Sequential(Small().conv, nn.Flatten(2))), SIZE)


MAP, AUXILIARY = torch.rand(2, 5, 8, 8), torch.rand(2, 5, 4, 4)


@pytest.mark.parametrize(
    "returned",
    [
        {"out": MAP, "embedding": torch.rand(2, 64)},
        {"logits": MAP, "presence": torch.rand(2, 3)},
        {"out": MAP, "aux": AUXILIARY},
        {"mask": MAP},
        (MAP,),
    ],
)
def test_answers_per_pixel_are_found_among_the_outputs(returned):
    assert pick_logits(returned, batch=2) is MAP


def test_logits_beside_a_wider_map_are_those_of_the_images():
    logits = torch.rand(2, 3)
    assert pick_logits({"out": MAP, "scores": logits}, batch=2) is logits


def test_several_maps_have_to_be_named():
    with pytest.raises(UsageError, match=r"2 of these have the shape \[2, classes, height, width\].*--output"):
        pick_logits((MAP, AUXILIARY), batch=2)
    assert pick_logits((MAP, AUXILIARY), batch=2, output="0") is MAP


def test_a_program_exported_on_a_gpu_is_opened_on_the_cpu(tmp_path):
    module = Small().eval()
    export(module, tmp_path / "t.pt2", SIZE)

    def move(config, records):
        for payload in config.values():
            assert payload["tensor_meta"]["device"]["type"] == "cpu"
            payload["tensor_meta"]["device"] = {"type": "cuda", "index": 0}

    (tmp_path / "t.pt2").write_bytes(edit_config((tmp_path / "t.pt2").read_bytes(), "weights", move))
    classifier = load(tmp_path / "t.pt2", mean=(0.0,), std=(1.0,))
    assert {tensor.device.type for tensor in classifier.state_dict().values()} == {"cpu"}
    assert_same(classifier, module)
