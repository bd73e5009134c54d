"""Compression of a classifier of handwritten digits, offline: `make demo`.

Trains a teacher on scikit-learn's bundled digits, saves it as a TorchScript file, compresses that file with the
installed `dfkd` **without** the digits, and evaluates the student on digits that neither network was trained on.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from dfkd_cli.models import REFERENCE_ARCHS  # the import registers the networks below with timm

TEACHER = "cifar_resnet20"
EPOCHS, BATCH_SIZE = 12, 64
SMALL_RUN = ("--set", "options.buffer.size=2000", "--set", "options.warmup.rounds=60")


def main() -> None:
    """Run the demo in `--out` and print its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400, help="of the student")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()

    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16.0
    digits = torch.tensor(classes)
    first, second = train_test_split(range(len(digits)), test_size=0.3, random_state=0, stratify=classes)
    seen, labels, held_out, held_out_labels = images[first], digits[first], images[second], digits[second]
    mean, std = float(seen.mean()), float(seen.std())
    print(f"training {TEACHER} on {len(seen)} handwritten digits ...", flush=True)
    torch.manual_seed(arguments.seed)
    save_torchscript(trained_teacher((seen - mean) / std, labels), out / "teacher.pt")
    save_images(held_out, held_out_labels, out / "held-out")

    about = ["--input-size", "1x8x8", "--mean", f"{mean:.4f}", "--std", f"{std:.4f}"]
    chosen = ["--out", str(out / "student"), "--overwrite", "--seed", str(arguments.seed)]
    dfkd("compress", str(out / "teacher.pt"), *about, *chosen, "--set", f"train.steps={arguments.steps}", *SMALL_RUN)
    compared = ["--teacher", str(out / "teacher.pt"), *about]
    figures = json.loads(dfkd("evaluate", str(out / "student"), "--data", str(out / "held-out"), *compared, "--json"))
    report = json.loads((out / "student" / "report.json").read_text())
    print(summary(figures, report, out / "student", time.monotonic() - begun))


def trained_teacher(inputs: Tensor, labels: Tensor) -> nn.Module:
    """Return a network trained on normalised images [N, 1, 8, 8], in eval mode."""
    if TEACHER not in REFERENCE_ARCHS:
        raise ValueError(TEACHER)
    teacher = timm.create_model(TEACHER, num_classes=10, in_chans=1)
    steps = EPOCHS * (len(inputs) // BATCH_SIZE)
    optimizer = torch.optim.SGD(teacher.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (BATCH_SIZE,))
        loss = F.cross_entropy(teacher(inputs[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return teacher.eval()


def save_torchscript(network: nn.Module, path: Path) -> None:
    """Save the network as a traced TorchScript archive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated but common
        torch.jit.save(torch.jit.trace(network, torch.rand(2, 1, 8, 8)), path)


def save_images(images: Tensor, labels: Tensor, folder: Path) -> None:
    """Write images [N, 1, H, W] as PNG files into one folder per class."""
    shutil.rmtree(folder, ignore_errors=True)
    for number, (image, label) in enumerate(zip((images * 255).byte(), labels.tolist(), strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(place / f"{number:04d}.png")


def dfkd(*arguments: str) -> str:
    """Run the installed command and return its standard output. Ends the demo when the command fails."""
    print("$ dfkd " + " ".join(arguments), flush=True)
    command = [str(Path(sys.executable).parent / "dfkd"), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def summary(figures: dict, report: dict, student: Path, seconds: float) -> str:
    """Return the result of the demo as a few lines of text."""
    teacher_size, student_size = report["teacher"]["parameters"], figures["parameters"]
    return "\n".join(
        [
            "",
            f"teacher   accuracy {figures['teacher_accuracy']:.4f}, {teacher_size:,} parameters",
            f"student   accuracy {figures['accuracy']:.4f}, {student_size:,} parameters "
            f"({student_size / teacher_size:.0%} of the teacher's)",
            f"relative accuracy {figures['relative_accuracy']:.4f} on {figures['images']} digits not used in training",
            f"report    {student / 'report.html'}",
            f"images    {student / 'samples.png'}: images that the student was trained on",
            f"time      {seconds:.0f} s",
        ]
    )


if __name__ == "__main__":
    main()
