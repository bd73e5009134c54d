"""Reference networks of the data-free literature. Importing this package adds them to timm's registry."""

from dfkd_cli.models import espnet, lenet, resnet_cifar, vgg_cifar, wide_resnet

REFERENCE_ARCHS: tuple[str, ...] = tuple(
    name for module in (resnet_cifar, wide_resnet, vgg_cifar, lenet, espnet) for name in module.default_cfgs
)

__all__ = ["REFERENCE_ARCHS", "espnet", "lenet", "resnet_cifar", "vgg_cifar", "wide_resnet"]
