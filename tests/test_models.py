"""Tests of the reference networks: sizes, shapes, timm's interface, and third-party weights with their accuracy."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from dfkd_cli.models import REFERENCE_ARCHS

PARAMETERS = {
    "cifar_resnet8": 75_290,
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet18": 11_173_962,
    "cifar_resnet34": 21_282_122,
    "cifar_resnet18_half": 2_797_610,
    "cifar_wrn_16_1": 175_066,
    "cifar_wrn_16_2": 691_674,
    "cifar_wrn_40_1": 563_930,
    "cifar_wrn_40_2": 2_243_546,
    "cifar_vgg11_bn": 9_231_114,
    "lenet5": 61_706,
    "lenet5_half": 15_738,
    "espnet_p2_q8": 354_517,
    "espnet_p2_q3": 192_597,
    "espnet_p1_q2": 152_341,
}
RESNETS = {
    "cifar_resnet20": ("resnet20-12fca82f.th", 91.73),
    "cifar_resnet32": ("resnet32-d509ac18.th", 92.63),
    "cifar_resnet44": ("resnet44-014dd654.th", 93.10),
    "cifar_resnet56": ("resnet56-4bfd9763.th", 93.39),
}


def create(name: str, **options: Any) -> Any:
    """Return a timm network, typed so that the type checker accepts its layers."""
    return timm.create_model(name, **options)


def _slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


def test_every_network_has_a_known_size():
    assert set(PARAMETERS) == set(REFERENCE_ARCHS)


@pytest.mark.parametrize("name", REFERENCE_ARCHS)
def test_parameter_count(name):
    module = create(name)
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("size", [28, 32, 40])
@pytest.mark.parametrize("name", [name for name in REFERENCE_ARCHS if PARAMETERS[name] < 3e6])
def test_other_channels_classes_and_sizes(name, size):
    module = create(name, num_classes=7, in_chans=2).eval()
    expected = (2, 7, size, size) if name.startswith("espnet") else (2, 7)
    assert module(torch.rand(2, 2, size, size)).shape == expected


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_resnet18_half", "cifar_wrn_16_1", "cifar_vgg11_bn", "lenet5"])
class TestTimmInterface:
    """Tests of timm's interface, for one network per family."""

    def test_head_on_features_is_the_forward(self, name):
        module = create(name, in_chans=3).eval()
        images = torch.rand(2, 3, 32, 32)
        assert torch.equal(module.forward_head(module.forward_features(images)), module(images))

    def test_embedding_width(self, name):
        module = create(name, in_chans=3).eval()
        features = module.forward_features(torch.rand(2, 3, 32, 32))
        assert module.forward_head(features, pre_logits=True).shape == (2, module.head_hidden_size)
        assert module.get_classifier().in_features == module.head_hidden_size

    def test_reset_classifier(self, name):
        module = create(name, in_chans=3).eval()
        module.reset_classifier(5)
        assert module.num_classes == 5
        assert module(torch.rand(1, 3, 32, 32)).shape == (1, 5)

    def test_without_classes_the_output_is_the_embedding(self, name):
        module = create(name, in_chans=3, num_classes=0).eval()
        assert module(torch.rand(1, 3, 32, 32)).shape == (1, module.head_hidden_size)

    def test_configuration_names_its_layers(self, name):
        module = create(name)
        keys = module.state_dict().keys()
        cfg = module.pretrained_cfg
        assert {f"{cfg['first_conv']}.weight", f"{cfg['classifier']}.weight"} <= set(keys)
        assert cfg["input_size"][1:] == (32, 32)
        assert len(cfg["mean"]) == len(cfg["std"]) == cfg["input_size"][0]

    def test_pretrained_weights_adapt_through_timm(self, name):
        weights = create(name, in_chans=3).state_dict()
        loaded = create(name, pretrained=True, in_chans=3, pretrained_cfg_overlay={"state_dict": weights})
        assert all(torch.equal(loaded.state_dict()[key], weights[key]) for key in weights)

    @pytest.mark.filterwarnings("ignore:.torch.jit.script. is")
    def test_scripts(self, name):
        module = create(name, in_chans=3).eval()
        images = torch.rand(2, 3, 32, 32)
        assert torch.allclose(torch.jit.script(module)(images), module(images), atol=1e-6)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_exports(self, name):
        module = create(name, in_chans=3).eval()
        images = torch.rand(3, 3, 32, 32)
        program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        assert torch.allclose(program.module()(images[:2]), module(images[:2]), atol=1e-6)


def test_option_a_shortcut_pads_half_in_front():
    module = create("cifar_resnet8")
    shortcut = module.layer2[0].shortcut
    image = torch.rand(1, 16, 8, 8)
    out = shortcut(image)
    assert torch.equal(out[:, 8:24], image[:, :, ::2, ::2])
    assert out[:, :8].abs().sum() == out[:, 24:].abs().sum() == 0


def test_initialisation_is_he_normal():
    torch.manual_seed(0)
    weight = create("cifar_resnet18").layer4[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", RESNETS)
def test_third_party_resnets_load_strictly(name, teachers):
    create(name).load_state_dict(_resnet_weights(teachers, name))


def test_third_party_lenet_loads_strictly(teachers):
    create("lenet5").load_state_dict(_lenet_weights(teachers))


@pytest.mark.parametrize("name", [name if name == "cifar_resnet20" else _slow(name) for name in RESNETS])
def test_third_party_resnet_accuracy(name, teachers, cifar10_images):
    module = create(name)
    module.load_state_dict(_resnet_weights(teachers, name))
    assert _accuracy(module, *cifar10_images) == pytest.approx(RESNETS[name][1], abs=0.1)


def test_third_party_lenet_accuracy(teachers, mnist_root):
    module = create("lenet5")
    module.load_state_dict(_lenet_weights(teachers))
    dataset = MNIST(mnist_root, train=False)
    images = [Image.fromarray(array.numpy()).resize((32, 32), Image.Resampling.BILINEAR) for array in dataset.data]
    batch = torch.stack([pil_to_tensor(image) for image in images])
    assert _accuracy(module, batch, dataset.targets) == pytest.approx(98.91, abs=0.1)


@pytest.fixture(scope="module")
def cifar10_images(cifar10_test):
    dataset = ImageFolder(str(cifar10_test))
    arrays = np.stack([np.asarray(image) for image, _ in dataset])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2), torch.tensor(dataset.targets)


def _resnet_weights(teachers, name):
    content = torch.load(teachers / RESNETS[name][0], map_location="cpu", weights_only=True)
    return {key.removeprefix("module."): value for key, value in content["state_dict"].items()}


def _lenet_weights(teachers):
    return torch.load(teachers / "kegnet-mnist.pth.tar", map_location="cpu", weights_only=True)["model_state"]


@torch.inference_mode()
def _accuracy(module, images, labels):
    """Return the accuracy in percent on uint8 images [N, C, H, W], normalised by the network's configuration."""
    module.eval()
    mean, std = (torch.tensor(module.pretrained_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
    correct = 0
    for batch, truth in zip(images.split(500), labels.split(500), strict=True):
        correct += (module((batch / 255 - mean) / std).argmax(1) == truth).sum().item()
    return 100 * correct / len(labels)
