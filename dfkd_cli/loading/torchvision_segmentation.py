"""torchvision's segmentation networks, without what is not theirs at evaluation: dicts and auxiliary heads."""

from typing import Any

from torch import Tensor, nn


class SegmentationNetwork(nn.Module):
    """The backbone and the head of a network of torchvision: normalised images -> logits [B, K, h, w].

    torchvision enlarges the logits to the size of the images, as dfkd does for every segmentation network.
    """

    def __init__(self, backbone: nn.Module, classifier: nn.Module, several_maps: bool):
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.several_maps = several_maps  # whether the head takes all feature maps

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        features = self.backbone(x)
        return self.classifier(features if self.several_maps else features["out"])


def segmentation_names() -> list[str]:
    """Return the names of torchvision's segmentation networks."""
    from torchvision import models

    return models.list_models(module=models.segmentation)


def create_segmentation(name: str, num_classes: int) -> SegmentationNetwork:
    """Return the network with random weights and torchvision's names of layers, for images of three channels."""
    from torchvision import models

    whole: Any = models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes)
    several = isinstance(whole, models.segmentation.LRASPP)
    return SegmentationNetwork(whole.backbone, whole.classifier, several)


def without_auxiliary_head(weights: dict[str, Tensor], module: nn.Module | None = None) -> dict[str, Tensor]:
    """Return the weights without those of the auxiliary head, which only the training uses."""
    return {name: value for name, value in weights.items() if not name.startswith("aux_classifier.")}
