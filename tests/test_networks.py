"""Tests that eager, traced, scripted and exported networks have the same observed layers and gradients."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from network_zoo import MODULES, NORM_CALLS, SIZE, batchnorm_loss, make_images, make_module
from torch import nn

from dfkd_cli.networks import EagerNetwork, ExportedNetwork, Network, ScriptNetwork
from dfkd_cli.networks.torchscript.evaluation import evaluation_graph
from dfkd_cli.training.distillation.attention import attention_transfer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:The given buffer is not writable"),  # torch.export.load of torch 2.9
]
FORMS = ("traced", "scripted", "exported")


def _through_file(save: Callable, load: Callable, saved: object):
    file = io.BytesIO()
    save(saved, file)
    file.seek(0)
    return load(file)


def _network(module: nn.Module, form: str) -> Network:
    example = torch.randn(2, *SIZE, dtype=next(module.parameters()).dtype)
    if form == "eager":
        return EagerNetwork(module, input_size=SIZE)
    if form == "exported":
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        return ExportedNetwork(_through_file(torch.export.save, torch.export.load, program))
    script = torch.jit.trace(module, example) if form == "traced" else torch.jit.script(module)
    return ScriptNetwork(_through_file(torch.jit.save, torch.jit.load, script), input_size=SIZE)


@pytest.fixture(scope="module")
def built() -> Callable[[str, str], Network]:
    """Return a function that builds networks by name and form, each once, because exporting takes seconds."""
    cache: dict[tuple[str, str], Network] = {}

    def get(name: str, form: str) -> Network:
        if (name, form) not in cache:
            cache[name, form] = _network(make_module(name), form)
        return cache[name, form]

    return get


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "tangled"])
def test_batchnorm_loss_and_its_gradient_are_those_of_the_eager_network(built, name, form):
    results = []
    for network in (built(name, "eager"), built(name, form)):
        inputs = make_images().requires_grad_()
        loss = batchnorm_loss(network, inputs)
        results.append((loss, *torch.autograd.grad(loss, inputs)))
    (loss, gradient), (archive_loss, archive_gradient) = results
    assert gradient.norm() > 0
    assert abs(archive_loss - loss) <= 1e-5 * loss
    assert (archive_gradient - gradient).norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize("form", ["eager", *FORMS])
@pytest.mark.parametrize("name", MODULES)
def test_every_call_with_running_statistics_is_observed(built, name, form):
    network = built(name, form)
    assert len(network.norm_statistics) == len(network.observe(make_images()).norm_inputs) == NORM_CALLS[name]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODULES)
def test_observing_an_archive_gives_the_eager_logits_embedding_and_stages(built, name, form):
    expected, outputs = (built(name, which).observe(make_images()) for which in ("eager", form))
    torch.testing.assert_close(outputs.logits, expected.logits)
    torch.testing.assert_close(outputs.embedding, expected.embedding)
    torch.testing.assert_close(list(outputs.stages), list(expected.stages))
    torch.testing.assert_close(built(name, form)(make_images()), expected.logits)


@pytest.mark.parametrize("form", ["eager", *FORMS])
def test_weights_are_counted_once(built, form):
    network, module = built("test_resnet", form), make_module("test_resnet")
    assert sum(value.numel() for value in network.parameters()) == sum(value.numel() for value in module.parameters())
    floats = [value for value in network.state_dict().values() if value.is_floating_point()]
    assert len(floats) == len([value for value in module.state_dict().values() if value.is_floating_point()])


@pytest.mark.parametrize("form", FORMS)
def test_archives_are_frozen_and_stay_in_evaluation_mode(built, form):
    network = built("tangled", form)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    before = network(make_images())
    torch.testing.assert_close(network.train()(make_images()), before)
    assert not network.training


@pytest.mark.parametrize("form", ["eager", "exported"])
def test_statistics_and_forward_follow_a_move(form):
    network = _network(make_module("tangled"), form).to("meta")  # the only other device that every machine has
    outputs = network.observe(make_images().to("meta"))
    assert {statistics.mean.device.type for statistics in network.norm_statistics} == {"meta"}
    assert {outputs.logits.device.type, outputs.norm_inputs[-1].device.type} == {"meta"}


@pytest.mark.parametrize("form", ["traced", "scripted"])
def test_archives_follow_a_change_of_type_and_of_device(form):
    network = _network(make_module("tangled"), form).double()  # TorchScript cannot move to "meta"
    assert {statistics.var.dtype for statistics in network.norm_statistics} == {torch.float64}
    assert network(make_images().double()).dtype == torch.float64
    archive: Any = network.get_submodule("module")
    graph = evaluation_graph(archive).graph
    constants = [node.output() for node in graph.findAllNodes("prim::Constant")]
    assert not [value for value in constants if value.type().kind() == "DeviceObjType" and value.uses()]


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_archives_run_in_single_precision(built, form):
    module = make_module("test_resnet").half()
    logits = _network(module, form)(make_images())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, built("test_resnet", "eager")(make_images()), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["test_resnet", "tangled", "lenet"])
def test_attention_transfer_from_an_archive_equals_that_from_the_eager_network(built, name, form):
    expected, outputs = (built(name, which).observe(make_images()) for which in ("eager", form))
    student = EagerNetwork(make_module("test_efficientnet")).observe(make_images())
    distances = [attention_transfer(student.stages, seen.stages, "sum") for seen in (expected, outputs)]
    torch.testing.assert_close(distances[1], distances[0], rtol=1e-4, atol=1e-6)
    assert (distances[0] > 1e-3).all()
    nothing = attention_transfer(outputs.stages, expected.stages, "sum")
    torch.testing.assert_close(nothing, torch.zeros(4), rtol=0, atol=1e-8)
