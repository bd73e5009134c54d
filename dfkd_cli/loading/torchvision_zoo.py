"""torchvision's own classifiers and segmentation networks, which are named `torchvision/NAME`."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dfkd_cli.errors import UsageError
from dfkd_cli.loading.torchvision_segmentation import (
    create_segmentation,
    segmentation_names,
    without_auxiliary_head,
)
from dfkd_cli.networks.layer_sizes import fit_layers

PREFIX = "torchvision/"
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
_SIZES = ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")
_HALF = (0.5, 0.5, 0.5)
# Names of older versions of torchvision -> names of this one.
_OLDER_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "resnet101", "resnet152")
_VGGS = tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))
_EFFICIENT = ("b0", "b1", "b2", "b3", "v2_s", "b4", "v2_m", "b5", "b6", "b7", "v2_l")
# A weight that all networks of a family have, and their names, the smallest network first.
_FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("conv1.weight", (*_RESNETS, "resnext101_32x8d", "resnext101_64x4d", "wide_resnet101_2")),
    ("classifier.6.weight", ("alexnet", *_VGGS)),
    ("features.3.squeeze.weight", ("squeezenet1_1", "squeezenet1_0")),
    ("features.1.0.layer_scale", ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")),
    ("features.1.0.block.0.0.weight", tuple(f"efficientnet_{size}" for size in _EFFICIENT)),
    ("features.1.conv.0.0.weight", ("mobilenet_v2",)),
    ("features.1.block.0.0.weight", ("mobilenet_v3_small", "mobilenet_v3_large")),
    ("features.1.0.attn.relative_position_bias_table", ("swin_t", "swin_s", "swin_b")),
    ("features.1.0.attn.cpb_mlp.0.weight", ("swin_v2_t", "swin_v2_s", "swin_v2_b")),
    ("features.conv0.weight", ("densenet121", "densenet169", "densenet201", "densenet161")),
    ("inception3a.branch1.conv.weight", ("googlenet",)),
    ("Conv2d_1a_3x3.conv.weight", ("inception_v3",)),
    ("stem.0.0.weight", ("maxvit_t",)),
    ("layers.8.0.layers.0.weight", ("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3")),
    ("trunk_output.block1.block1-0.f.se.fc1.weight", (*(f"regnet_y_{size}" for size in _SIZES), "regnet_y_128gf")),
    ("trunk_output.block1.block1-0.f.a.0.weight", tuple(f"regnet_x_{size}" for size in _SIZES)),
    ("stage2.0.branch1.0.weight", tuple(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0"))),
    ("conv_proj.weight", ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")),
)


class DefaultInput(NamedTuple):
    """What images a network takes that has the classes and channels of the published weights."""

    num_classes: int
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class _OnMeta(TorchFunctionMode):
    """Creates parameters without memory; unlike on the meta device, constructors can compute with tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def torchvision_names() -> list[str]:
    """Return the names of torchvision's image classifiers and segmentation networks, without `torchvision/`."""
    from torchvision import models

    return [*models.list_models(module=models), *segmentation_names()]


def create_torchvision(
    name: str, num_classes: int = 1000, in_chans: int = 3, img_size: tuple[int, int] | None = None
) -> nn.Module:
    """Return the network with random weights, without auxiliary heads.

    Only vision transformers depend on `img_size`, which is (height, width).
    """
    from torchvision import models

    if name in segmentation_names():
        if in_chans != 3:
            raise UsageError(f"{PREFIX}{name} takes images of 3 channels, not {in_chans}")
        return create_segmentation(name, num_classes)
    options: dict[str, Any] = {"num_classes": num_classes}
    if name in _WITH_AUXILIARY_HEADS:
        options |= {"aux_logits": False, "init_weights": False}
    if img_size is not None and name.startswith("vit_"):
        options["image_size"] = img_size[0]
    module = models.get_model(name, weights=None, **options)
    if in_chans != 3:
        stem, weight = next((key, value) for key, value in module.state_dict().items() if value.ndim == 4)
        fit_layers(module, {stem: weight.new_empty(weight.shape[0], in_chans, *weight.shape[2:])})
    return module


def plain_torchvision(name: str, num_classes: int) -> nn.Module:
    """Return the network for its names and shapes; its parameters have no memory."""
    with _OnMeta():
        return create_torchvision(name, num_classes)


def default_input(name: str) -> DefaultInput | None:
    """Return what torchvision's published weights take; None when it publishes none."""
    from torchvision import models

    published = next(iter(models.get_model_weights(name)), None)
    if published is None:
        return None
    transforms, classes = published.transforms(), len(published.meta["categories"])
    side = (transforms.resize_size if name in segmentation_names() else transforms.crop_size)[0]
    size = (3, side, side)
    if name in _WITH_AUXILIARY_HEADS:  # with published weights their first layer undoes the usual normalisation
        return DefaultInput(classes, size, _HALF, _HALF)
    return DefaultInput(classes, size, tuple(transforms.mean), tuple(transforms.std))


def image_side(weights: Mapping[str, Tensor]) -> int | None:
    """Return the height and width of the images of a vision transformer, which its position embedding determines."""
    position, patches = weights.get("encoder.pos_embedding"), weights.get("conv_proj.weight")
    if position is None or patches is None or position.ndim != 3 or patches.ndim != 4:
        return None
    return math.isqrt(position.shape[1] - 1) * patches.shape[2] if position.shape[1] > 1 else None


def present_names(weights: dict[str, Tensor], module: nn.Module | None = None) -> dict[str, Tensor]:
    """Return the weights with the names that this version of torchvision gives them."""
    return without_auxiliary_head({_present(name): value for name, value in weights.items()})


def _present(name: str) -> str:
    for pattern, replacement in _OLDER_NAMES:
        name = pattern.sub(replacement, name)
    return name


def families(known: Collection[str]) -> list[list[str]]:
    """Return the names of networks by family, of the families whose common weight is in `known`."""
    return [list(names) for weight, names in _FAMILIES if weight in known]
