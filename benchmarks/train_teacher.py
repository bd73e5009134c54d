"""Trains a teacher for benchmarks from scratch: SGD, cosine schedule, shifts and flips; minutes on a GPU.

    python -m benchmarks.train_teacher --arch cifar_resnet34 --data DATA/cifar10/train --eval DATA/cifar10/test \
        --out TEACHERS/cifar_resnet34.pt

All images are decoded once and stored on the device as bytes. The file contains its architecture and its input
specification, so that dfkd loads it without options. The reported accuracy is that of the last weights.
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.data.datasets import LabelledImages, open_dataset
from dfkd_cli.evaluation.accuracy import measure_accuracy
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.machine.runtime import Runtime, choose_dtype
from dfkd_cli.networks import EagerNetwork
from dfkd_cli.networks.classifier import Classifier, InputSpec
from dfkd_cli.students.student import build_student
from dfkd_cli.training.augmentation import Augmentation
from dfkd_cli.training.schedules import cosine, ramp

AUGMENTATION = Augmentation(flip=True, shift=0.125, mix=0.0, cut=0.0)  # the usual 4 of 32 pixels

RAMP = 0.025  # share of the training over which the learning rate grows from 0


class Images(NamedTuple):
    """A whole training set on the device."""

    pixels: Tensor  # uint8 [N, C, H, W]
    labels: Tensor  # [N]


def main() -> None:
    """Train, save and evaluate a teacher."""
    arguments = parser().parse_args()
    torch.manual_seed(arguments.seed)
    device = resolve_device(arguments.device)
    runtime = Runtime(device, choose_dtype(arguments.precision, device), not arguments.no_compile)
    spec = default_spec(arguments.arch)
    teacher = runtime.place(build_student(arguments.arch, spec))
    images = held(open_dataset(arguments.data, spec), device)
    tested = open_dataset(arguments.eval, spec) if arguments.eval else None
    print(f"{arguments.arch}, {len(images.labels):,} images, {device}, {runtime.dtype}", flush=True)
    begun = time.monotonic()
    train(teacher, images, runtime, arguments)
    save(teacher, arguments.out)
    print(f"trained in {time.monotonic() - begun:.0f} s, written {arguments.out}")
    for note in runtime.notes:
        print(note)
    if tested is not None:
        accuracy = measure_accuracy(teacher, tested, device).accuracy
        print(f"accuracy {accuracy:.4f} on {len(tested):,} images of {arguments.eval}")


def train(teacher: Classifier, images: Images, runtime: Runtime, arguments: argparse.Namespace) -> None:
    """Train in place. The host waits for the device once per epoch, to print the loss."""
    rng = torch.Generator(runtime.device).manual_seed(arguments.seed)
    optimizer = torch.optim.SGD(
        teacher.requires_grad_(True).parameters(),
        arguments.lr,
        momentum=0.9,
        weight_decay=arguments.weight_decay,
        nesterov=True,
    )
    forward = runtime.compile(teacher)
    per_epoch = max(1, len(images.labels) // arguments.batch_size)
    teacher.train()
    for epoch in range(arguments.epochs):
        begun, total = time.monotonic(), torch.zeros((), device=runtime.device)
        order = torch.randperm(len(images.labels), generator=rng, device=runtime.device)
        for step, chosen in enumerate(order.split(arguments.batch_size)[:per_epoch]):
            progress = (epoch * per_epoch + step) / (arguments.epochs * per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = cosine(progress, arguments.lr) * ramp(progress + 1e-3, RAMP)
            batch = runtime.images(AUGMENTATION(images.pixels[chosen].float().div(255), rng))
            with runtime.autocast():
                logits = forward(batch)
            loss = F.cross_entropy(logits.float(), images.labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        print(f"epoch {epoch + 1}: loss {float(total) / per_epoch:.4f}, {time.monotonic() - begun:.1f} s", flush=True)
    teacher.eval()


def held(data: LabelledImages, device: torch.device) -> Images:
    """Return all images of a data set on the device."""
    batches = [((images * 255).round().byte(), labels) for images, labels in data.batches(1024)]
    pixels, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    return Images(pixels.to(device), labels.to(device))


def default_spec(arch: str) -> InputSpec:
    """Return the default input specification of an architecture."""
    cfg: Any = timm.get_pretrained_cfg(arch)
    if cfg is None:
        raise SystemExit(f"--arch {arch}: timm has no configuration for it")
    return InputSpec(tuple(cfg.input_size), tuple(cfg.mean), tuple(cfg.std), cfg.num_classes)


def save(teacher: Classifier, path: Path) -> None:
    """Save a checkpoint in the format of timm's training script, which dfkd loads without options."""
    spec, network = teacher.spec, cast(EagerNetwork, teacher.network)
    weights = {name: tensor.cpu().contiguous() for name, tensor in network.module.state_dict().items()}
    facts = {"num_classes": spec.num_classes, "input_size": spec.size, "mean": spec.mean, "std": spec.std}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"arch": teacher.origin.arch, "state_dict": weights, "args": facts}, path)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="cifar_resnet34", help="cifar_resnet34, cifar_wrn_40_2, ...")
    parser.add_argument("--data", required=True, metavar="DIR", help="training images, one folder per class")
    parser.add_argument("--eval", metavar="DIR", help="test images")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--no-compile", action="store_true")
    return parser


if __name__ == "__main__":
    main()
