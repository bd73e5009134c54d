"""What the shell offers after a tab. It waits for the answer, so nothing here imports torch."""

from __future__ import annotations

# A subset of what `dfkd models` lists: all of the project's own networks and a few of timm's that suit as students.
STUDENTS = (
    *(f"cifar_resnet{depth}" for depth in (8, 20, 32, 44, 56, 18, 34)),
    "cifar_resnet18_half",
    *(f"cifar_wrn_{depth}_{width}" for depth in (16, 40) for width in (1, 2)),
    "cifar_vgg11_bn",
    "lenet5",
    "lenet5_half",
    "resnet10t",
    "resnet18",
    "mobilenetv2_050",
    "mobilenetv3_small_100",
    "efficientnet_lite0",
)


def complete_recipe(incomplete: str) -> list[str]:
    """Names of recipes that begin like this."""
    from dfkd_cli.recipe.shipped import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)]


def complete_student(incomplete: str) -> list[str]:
    """Names of small networks that begin like this."""
    return [name for name in STUDENTS if name.startswith(incomplete)]
