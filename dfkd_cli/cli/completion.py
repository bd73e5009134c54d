"""Names for the completion of the shell. Imports no torch, because the shell waits for them."""

from __future__ import annotations

# Some names that `dfkd models` lists: all networks of dfkd, and small ones of timm.
STUDENTS = (
    *(f"cifar_resnet{depth}" for depth in (8, 20, 32, 44, 56, 18, 34)),
    "cifar_resnet18_half",
    *(f"cifar_wrn_{depth}_{width}" for depth in (16, 40) for width in (1, 2)),
    "cifar_vgg11_bn",
    "lenet5",
    "lenet5_half",
    "espnet_p2_q8",
    "espnet_p2_q3",
    "espnet_p1_q2",
    "resnet10t",
    "resnet18",
    "mobilenetv2_050",
    "mobilenetv3_small_100",
    "efficientnet_lite0",
)


def complete_recipe(incomplete: str) -> list[str]:
    """Return the names of recipes that begin with `incomplete`."""
    from dfkd_cli.recipe.shipped import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)]


def complete_student(incomplete: str) -> list[str]:
    """Return the names of small networks that begin with `incomplete`."""
    return [name for name in STUDENTS if name.startswith(incomplete)]
