"""Labelled images without a training: each in the folder of the class that a network predicts for it."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

LETTERS = "abcdefghij"


def balanced(module: Any, head: nn.Linear, seed: int, size: tuple[int, int, int]) -> nn.Module:
    """Give the network a head that predicts all classes about equally often for images of `noise`; return it."""
    generator = torch.Generator().manual_seed(seed)
    module.eval()
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
        head.bias.zero_()
        logits = module(noise(400, size))
        head.weight.div_(logits.std(dim=0).unsqueeze(1))
        head.bias.copy_(-(logits.mean(dim=0) / logits.std(dim=0)))
    return module


def noise(count: int, size: tuple[int, int, int]) -> torch.Tensor:
    """Return smooth images [count, C, H, W] in steps of 1/255."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, size[0], 4, 4, generator=generator)
    images = nn.functional.interpolate(coarse, size=size[1:], mode="bilinear")
    return (images * 255).round() / 255


def save_labelled(module: nn.Module, folder: Path, size: tuple[int, int, int], classes: int) -> Path:
    """Write images of every class that `module` predicts (it takes images in [0, 1]), a folder per class; return it."""
    images = noise(400, size)
    with torch.no_grad():
        labels = module(images).argmax(dim=1)
    for label in range(classes):
        place = folder / LETTERS[label]
        place.mkdir(parents=True)
        for index in (labels == label).nonzero().flatten().tolist()[:4]:
            pixels = (images[index] * 255).byte().movedim(0, -1).squeeze(-1).numpy()
            Image.fromarray(pixels).save(place / f"{index}.png")
        assert any(place.iterdir()), f"no image of class {label}"
    return folder
