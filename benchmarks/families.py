"""Students made from teachers of many families of timm, with random weights, through the real commands.

python -m benchmarks.families [NAME[:SIZE] ...] [--work DIR]

For each architecture a checkpoint is compressed to half for three steps, twice: at once, and killed after the first and
the second step and resumed. The two students have to be equal bit for bit. The student is loaded again, counted, and
exported to ONNX, which compares the logits. One row of a Markdown table is printed per architecture.
"""

import argparse
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import dfkd_cli.compression.interface  # here, so that every command begins with all modules imported
from dfkd_cli.cli import main as dfkd
from dfkd_cli.loading.own_files import STUDENT_FILE
from dfkd_cli.training.checkpoint import Checkpoints

CLASSES = 10
# Families, each by a small member, with the side of its images: the smallest that the architecture allows or nearly so.
FAMILIES = {
    "resnet18": 32,
    "resnext26ts": 32,
    "resnetv2_18": 32,
    "wide_resnet50_2": 32,
    "seresnet18": 32,
    "ecaresnet26t": 32,
    "res2net50_14w_8s": 32,
    "resnest14d": 32,
    "skresnet18": 32,
    "regnetx_002": 32,
    "regnety_002": 32,
    "regnetz_005": 32,
    "vgg11_bn": 32,
    "densenet121": 32,
    "inception_v3": 75,
    "xception41": 64,
    "dla34": 32,
    "hrnet_w18_small": 32,
    "cspresnet50": 32,
    "vovnet39a": 32,
    "selecsls42": 64,
    "gernet_s": 32,
    "repvgg_a0": 32,
    "mobileone_s0": 32,
    "mobilenetv2_050": 32,
    "mobilenetv3_small_050": 32,
    "mobilenetv4_conv_small_035": 32,
    "efficientnet_b0": 32,
    "mnasnet_small": 32,
    "lcnet_035": 32,
    "rexnetr_100": 32,
    "ghostnet_050": 32,
    "fastvit_t8": 64,
    "repvit_m0_9": 32,
    "hgnetv2_b0": 32,
    "convnext_atto": 32,
    "convnextv2_atto": 32,
    "poolformer_s12": 64,
    "vit_tiny_patch16_224": 32,
    "deit_tiny_patch16_224": 32,
    "swin_tiny_patch4_window7_224": 32,
    "mixer_s32_224": 64,
    "pvt_v2_b0": 64,
    "cifar_resnet20": 32,
    "cifar_wrn_16_1": 32,
}
TINY = {
    "train.steps": 3,
    "train.batch_size": 4,
    "train.compile": "off",
    "train.round_every": 1,
    "options.generator.batch_size": 4,
    "options.generator.width": 4,
    "options.warmup.rounds": 1,
    "options.buffer.size": 8,
}


def main() -> None:
    """Print one row per architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME[:SIZE]", help="default: one architecture of every family")
    parser.add_argument("--work", type=Path, help="folder for the files; default: a temporary one")
    arguments = parser.parse_args()
    print("| architecture | image | parameters | student | result |\n|---|---|---|---|---|", flush=True)
    for text in arguments.names or FAMILIES:
        name, _, size = text.partition(":")
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            print(row(name, int(size or FAMILIES.get(name, 64)), Path(folder)), flush=True)


def row(name: str, size: int, folder: Path) -> str:
    """Return the row of an architecture; the last cell is `works`, or the message of the command that failed."""
    begin = f"| `{name}` | {size} |"
    if (error := in_child(lambda: make_checkpoint(name, size, folder / "teacher.pt"), folder)) is not None:
        return f"{begin} | | not built: {error} |"
    teacher = [str(folder / "teacher.pt"), "--arch", name, "--input-size", f"3x{size}x{size}"]
    teacher += ["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--num-classes", str(CLASSES)]
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    run = ["compress", *teacher, *settings, "--precision", "fp32", "--checkpoint-every", "1", "--progress", "none"]
    run.append("--no-calibration")
    whole, killed = folder / "whole", folder / "killed"
    tasks: dict[str, Callable[[], None]] = {
        "compress": lambda: command(*run, "--out", str(whole)),
        "killed after 1": lambda: killed_after(1, *run, "--out", str(killed)),
        "killed after 2": lambda: killed_after(2, *run, "--resume", str(killed)),
        "resumed": lambda: command(*run, "--resume", str(killed)),
        "loaded": lambda: load(whole, size),
        "export": lambda: command("export", str(whole), "--to", "onnx", "--out", str(folder / "student.onnx")),
    }
    for task, work in tasks.items():
        error = in_child(work, folder)
        if error is not None and not (task.startswith("killed") and error == "killed"):
            return f"{begin} | | {task}: {error} |"
        if error is None and task.startswith("killed"):
            return f"{begin} | | {task}: the run was over |"
    report = json.loads((whole / "report.json").read_text())
    sizes = report["teacher"]["parameters"], report["student"]["parameters"]
    equal = (whole / STUDENT_FILE).read_bytes() == (killed / STUDENT_FILE).read_bytes()
    result = "works" if equal and sizes[1] <= 0.5 * sizes[0] else "wrong: the resumed student is another one"
    return f"{begin} {sizes[0]:,} | {sizes[1]:,} | {result} |"


def make_checkpoint(name: str, size: int, path: Path) -> None:
    """Write random weights of an architecture, with BatchNorm statistics of random images.

    No layer has the first values of vectors, such as 0, 1 or 1e-6, with which removed channels could have no effect.
    """
    torch.manual_seed(0)
    fixed = timm.get_pretrained_cfg(name)
    sized: Any = {"img_size": size} if fixed is not None and fixed.fixed_input_size else {}
    module = timm.create_model(name, num_classes=CLASSES, **sized)
    for parameter in module.parameters():
        if parameter.ndim < 2 or parameter.abs().max() < 1e-3:
            parameter.data += 0.2 * torch.randn_like(parameter)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the statistics are the mean over all batches
    with torch.no_grad():
        module.train()(torch.randn(16, 3, size, size))
    torch.save({"state_dict": module.state_dict(), "arch": name}, path)


def command(*words: str) -> None:
    """Run `dfkd` with these words in this process."""
    sys.argv = ["dfkd", *words]
    dfkd()


def killed_after(step: int, *words: str) -> None:
    """Run `dfkd`, and kill this process when the checkpoint of a step is on the disk."""
    save = Checkpoints.save

    def save_and_die(self: Checkpoints, state: dict, at: int) -> None:
        save(self, state, at)
        if at >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoints.save = save_and_die  # pyright: ignore[reportAttributeAccessIssue]
    command(*words)


def load(folder: Path, size: int) -> None:
    """Load the student, and compare its logits with those of the file for programs without dfkd."""
    student = dfkd_cli.load(folder).eval()
    images = torch.rand(3, 3, size, size)
    with torch.no_grad():
        program = torch.export.load(folder / "student.pt2").module()
        torch.testing.assert_close(student(images), program(images), rtol=1e-3, atol=1e-4)


def in_child(work: Callable[[], None], folder: Path) -> str | None:
    """Run `work` in a child process; return None, "killed" or the last line that it printed on stderr."""
    log = folder / "stderr"

    def run() -> None:
        sys.stdout = (folder / "stdout").open("w")
        sys.stderr = log.open("w")
        work()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    if process.exitcode in (0, -signal.SIGKILL):
        return None if process.exitcode == 0 else "killed"
    lines = re.sub(r"\s+", " ", log.read_text().strip().replace("\n", "\0").rpartition("\0")[2])
    return f"exit code {process.exitcode}: {lines.replace('|', '/')}"


if __name__ == "__main__":
    main()
