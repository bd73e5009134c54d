"""Common code of the reference networks: timm's classifier interface, initialisation and default configuration."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from timm.models import build_model_with_cfg
from torch import Tensor, nn

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # as in DAFL's and Fast-Datafree's code
ModelT = TypeVar("ModelT", bound="ReferenceNetwork")


class ReferenceNetwork(nn.Module, ABC):
    """Implements timm's interface for a network that ends in one linear layer, `head_name`.

    Subclasses add `forward_features` and `forward_head`, and can be traced, scripted and exported.
    """

    num_classes: int
    num_features: int  # channels of the last feature map
    head_hidden_size: int  # width of the embedding, the input of the last linear layer
    head_name = "linear"

    def init_weights(self) -> None:
        """Initialise convolutions He-normal, as in the papers; BatchNorm and linear layers keep PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer, or nn.Identity without classes."""
        return getattr(self, self.head_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last linear layer by a new one; with 0 classes the network returns the embedding."""
        self.num_classes = num_classes
        setattr(self, self.head_name, make_head(self.head_hidden_size, num_classes))

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B, C, H, W] of normalised images [B, C, H, W]."""

    @abstractmethod
    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits [B, K] of the last feature map, or with `pre_logits` the embedding [B, head_hidden_size]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, K] of normalised images [B, C, H, W]."""
        return self.forward_head(self.forward_features(x))


def make_head(width: int, num_classes: int) -> nn.Module:
    """Return a linear layer from the embedding to the logits, or nn.Identity without classes."""
    return nn.Linear(width, num_classes) if num_classes else nn.Identity()


def default_cfg(mean: tuple[float, ...], std: tuple[float, ...], **extra: Any) -> dict[str, Any]:
    """Return a timm configuration for 32x32 RGB images and ten classes, without pretrained weights."""
    cfg = {
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": mean,
        "std": std,
        "first_conv": "conv1",
        "classifier": "linear",
    }
    return cfg | extra


def build(factory: Callable[..., ModelT], variant: str, pretrained: bool, defaults: dict, kwargs: dict) -> ModelT:
    """Build `factory` with timm's builder; the user's `kwargs` have priority over the variant's `defaults`."""
    return build_model_with_cfg(factory, variant, pretrained, **(defaults | kwargs))
