"""Tests of the forms of outputs: logits of several shapes and positions, probabilities, or a single number."""

import copy
import json
import math

import pytest
import safetensors.torch
import torch
from loading_helpers import ARCH, MNIST, SIZE, assert_same, create, export, load, script
from torch import nn

from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.export.onnx import write_onnx
from dfkd_cli.loading import LoadOptions
from dfkd_cli.loading.onnx import load_onnx
from dfkd_cli.networks.check import RANDOM
from dfkd_cli.networks.returned import NOTES, identify_outputs


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return create(ARCH).eval()


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_inputs_of_a_sigmoid_are_found_in_half_precision(tmp_path, outputs):
    """Between 0.99 and 1 half precision has three numbers, which are 5 to 14 before a sigmoid."""
    head = nn.Linear(math.prod(SIZE), outputs)
    nn.init.constant_(head.bias, 7.0)
    inner = nn.Sequential(nn.Flatten(), head).eval()
    path = script(nn.Sequential(inner, nn.Sigmoid()).eval(), tmp_path / "t.pt")
    classifier = load(path, input_size=SIZE, **MNIST)
    images = torch.rand(5, *SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        found = [classifier(images), classifier.observe(images).logits]
    expected = inner((images - classifier.mean) / classifier.std)
    for logits in found:
        torch.testing.assert_close(logits[:, -outputs:], expected, atol=0.01, rtol=0.01)


@pytest.mark.parametrize("save", [script, export])
def test_the_logits_behind_a_softmax_are_found(tmp_path, module, save):
    path = save(nn.Sequential(module, nn.Softmax(dim=1)).eval(), tmp_path / "t.pt")
    classifier = load(path, input_size=SIZE, **MNIST)
    assert any("returns probabilities" in note for note in classifier.origin.notes)
    images = torch.rand(3, *SIZE, requires_grad=True)
    expected = module((images - classifier.mean) / classifier.std).log_softmax(dim=1)
    for logits in (classifier(images), classifier.observe(images).logits):
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(classifier(images).log_softmax(dim=1).square().sum(), images)
    (wanted,) = torch.autograd.grad(expected.square().sum(), images)
    torch.testing.assert_close(gradient, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("save", [script, export])
def test_the_logits_before_a_sigmoid_are_found(tmp_path, module, save):
    path = save(nn.Sequential(module, nn.Sigmoid()).eval(), tmp_path / "t.pt")
    classifier = load(path, input_size=SIZE, **MNIST)
    assert any("sigmoid" in note for note in classifier.origin.notes)
    images = torch.rand(3, *SIZE)
    expected = module((images - classifier.mean) / classifier.std)
    for logits in (classifier(images), classifier.observe(images).logits):
        torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("last", ["identity", "log_softmax", "zeros", "from 0 to 1 by chance"])
def test_logits_stay_unchanged(tmp_path, module, last):
    network = nn.Sequential(copy.deepcopy(module), nn.LogSoftmax(dim=1) if last == "log_softmax" else nn.Identity())
    with torch.no_grad():
        *_, weight, bias = network.parameters()
        if last == "zeros":
            weight.mul_(0.0)
            bias.mul_(0.0)
        elif last == "from 0 to 1 by chance":
            weight.mul_(1e-2)
            bias.copy_(torch.linspace(0.4, 0.6, len(bias)))
    classifier = load(script(network.eval(), tmp_path / "t.pt"), input_size=SIZE, **MNIST)
    assert not any("from 0 to 1" in note or "probabilities" in note for note in classifier.origin.notes)
    assert_same(classifier, network)


def test_one_hot_probabilities_are_a_softmax():
    sure = torch.eye(10)[torch.tensor([3, 3, 1, 0])]
    assert identify_outputs(sure, lambda: sure) == "softmax"


def test_probabilities_that_underflow_leave_finite_gradients(tmp_path, module):
    sure = create(ARCH).eval()
    sure.load_state_dict(module.state_dict())
    with torch.no_grad():
        for parameter in list(sure.parameters())[-2:]:
            parameter.mul_(1e4)
    path = script(nn.Sequential(sure, nn.Softmax(dim=1)).eval(), tmp_path / "t.pt")
    classifier = load(path, input_size=SIZE, **MNIST)
    images = torch.rand(3, *SIZE, requires_grad=True)
    logits = classifier(images)
    (gradient,) = torch.autograd.grad(logits.square().sum(), images)
    assert logits.isfinite().all()
    assert gradient.isfinite().all()


class SeveralOutputs(nn.Module):
    """Returns logits and features."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.net = create(ARCH)

    def forward(self, x):
        scores, hidden = self.net(x), self.net.forward_features(x)
        return {"scores": scores, "hidden": hidden} if self.kind == "dict" else (hidden, scores)


@pytest.mark.parametrize("save", [script, export])
@pytest.mark.parametrize(("kind", "output"), [("tuple", None), ("tuple", "1"), ("dict", None), ("dict", "scores")])
def test_teachers_that_return_more_than_logits(tmp_path, save, kind, output):
    module = SeveralOutputs(kind).eval()
    if save is script and kind == "dict":
        pytest.skip("torch.jit.trace refuses dicts")
    classifier = load(save(module, tmp_path / "t.pt2"), input_size=SIZE, output=output, **MNIST)
    assert_same(classifier, module.net)


class Squeeze(nn.Module):
    def forward(self, x):
        return x.squeeze()


class TestOneNumber:
    """A network with one output has two classes, with the logits 0 and the input of a sigmoid."""

    @pytest.mark.parametrize("save", [script, export])
    @pytest.mark.parametrize("last", [nn.Identity(), Squeeze()])
    @pytest.mark.parametrize(
        ("kind", "squash", "tolerance"), [("score", nn.Identity(), 1e-5), ("probability", nn.Sigmoid(), 1e-3)]
    )
    def test_archives(self, tmp_path, save, kind, squash, tolerance, last):
        scoring = create(ARCH, num_classes=1).eval()
        path = save(nn.Sequential(scoring, squash, last).eval(), tmp_path / "t.pt")
        classifier = load(path, input_size=SIZE, num_classes=2, **MNIST)
        images = torch.rand(5, *SIZE)
        score = scoring((images - classifier.mean) / classifier.std)
        expected = torch.cat([torch.zeros_like(score), score], dim=1)
        seen = classifier.observe(images)
        for logits in (classifier(images), seen.logits):
            torch.testing.assert_close(logits, expected, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(classifier(images[:1]), expected[:1], atol=tolerance, rtol=tolerance)
        assert seen.embedding is not None
        assert classifier.spec.num_classes == 2
        assert set(NOTES[kind]) <= set(classifier.origin.notes)

    def test_state_dicts(self, tmp_path):
        scoring = create(ARCH, num_classes=1).eval()
        torch.save(scoring.state_dict(), tmp_path / "t.pt")
        classifier = load(tmp_path / "t.pt", arch=ARCH, input_size=SIZE, **MNIST)
        images = torch.rand(5, *SIZE)
        logits = classifier(images)
        assert logits.shape == (5, 2)
        torch.testing.assert_close(logits[:, 1:], scoring((images - classifier.mean) / classifier.std))
        with pytest.raises(UsageError, match=r"--num-classes says 10 classes, but the head fc2.weight says 2"):
            load(tmp_path / "t.pt", arch=ARCH, input_size=SIZE, num_classes=10, **MNIST)

    def test_hub_folders(self, tmp_path):
        config = {"architecture": ARCH, "num_classes": 1, "pretrained_cfg": {"input_size": SIZE} | MNIST}
        (tmp_path / "config.json").write_text(json.dumps(config))
        safetensors.torch.save_file(create(ARCH, num_classes=1).state_dict(), tmp_path / "model.safetensors")
        assert load(tmp_path).spec.num_classes == 2

    def test_onnx_files(self, tmp_path):
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
        scoring = create(ARCH, num_classes=1).eval()
        facts = {"num_classes": 2, "returned": "probability", "input_size": SIZE} | MNIST
        network = nn.Sequential(scoring, nn.Sigmoid(), Squeeze()).eval()
        (tmp_path / "t.onnx").write_bytes(write_onnx(network, torch.rand(2, *SIZE), True, facts))
        classifier = load_onnx(str(tmp_path / "t.onnx"), LoadOptions())
        images = torch.rand(5, *SIZE)
        logits = classifier(images)
        assert (logits[:, 0] == 0).all()
        expected = scoring((images - classifier.mean) / classifier.std)
        torch.testing.assert_close(logits[:, 1:], expected, atol=1e-3, rtol=1e-3)

    def test_nothing_but_zeros_is_no_probability(self):
        assert identify_outputs(torch.zeros(4, 1), lambda: torch.zeros(4, 1)) == "score"


class RandomNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = create(ARCH, num_classes=7)

    def forward(self, x):
        return self.net(x + torch.randn_like(x))


@pytest.mark.parametrize("save", [script, export])
def test_a_random_network_is_accepted_with_a_note(tmp_path, save):
    notes = load(save(RandomNetwork().eval(), tmp_path / "t.pt"), input_size=SIZE, **MNIST).origin.notes
    assert RANDOM in notes
    steady = load(save(RandomNetwork().net.eval(), tmp_path / "s.pt"), input_size=SIZE, **MNIST)
    assert RANDOM not in steady.origin.notes


class ClassIndex(nn.Module):
    """Returns class indices."""

    def __init__(self):
        super().__init__()
        self.net = create(ARCH, num_classes=7)

    def forward(self, x):
        return self.net(x).argmax(dim=1)


@pytest.mark.parametrize("save", [script, export])
def test_class_indices_are_not_a_score(tmp_path, save):
    path = save(ClassIndex().eval(), tmp_path / "t.pt")
    with pytest.raises(TeacherError, match=r"whole numbers \(int64\)"):
        load(path, input_size=SIZE, **MNIST)


class Convolutional(nn.Module):
    """Ends in a convolution and global pooling, without flattening."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("save", [script, export])
def test_logits_as_a_map_of_one_pixel(tmp_path, save):
    module = Convolutional().eval()
    classifier = load(save(module, tmp_path / "t.pt"), input_size=SIZE, **MNIST)
    images = torch.rand(3, *SIZE)
    expected = module((images - classifier.mean) / classifier.std).flatten(1)
    torch.testing.assert_close(classifier(images), expected)
    assert classifier.spec.num_classes == 4
    embedding = classifier.observe(images).embedding
    assert embedding is not None
    assert embedding.shape == (3, 6)


def test_a_map_of_more_pixels_is_no_logits_of_a_classifier(tmp_path):
    module = nn.Conv2d(1, 4, 3).eval()
    with pytest.raises(TeacherError, match=r"returns \[4, 4, 30, 30\]"):
        load(script(module, tmp_path / "t.pt"), input_size=SIZE, task="classification", **MNIST)
