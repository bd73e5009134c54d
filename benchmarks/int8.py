"""Networks in 8 bits, calibrated without their data: accuracy, size and speed beside those in single precision.

python -m benchmarks.int8 TEACHERS/resnet20-12fca82f.th --arch cifar_resnet20 --data DATA/cifar10/test --budget 1m
"""

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import get_args

import torch

from dfkd_cli.cli.options import parse_channels, parse_size
from dfkd_cli.compression.images_for_int8 import generated_calibration
from dfkd_cli.config.times import parse_budget
from dfkd_cli.data.datasets import open_dataset
from dfkd_cli.evaluation.benchmark import benchmark
from dfkd_cli.evaluation.calibration import Calibration
from dfkd_cli.export.export import export
from dfkd_cli.export.int8 import Int8Job, quantise
from dfkd_cli.export.job import ExportJob
from dfkd_cli.export.quantisation import Ranges
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.loading.onnx import load_onnx
from dfkd_cli.networks.classifier import Classifier

BATCHES = (1, 32)
NOISE_IMAGES = 1000


def main() -> None:
    """Print a table with a row per file: single precision, 8 bits from different images, and onnxruntime's dynamic."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--budget", default="1m", metavar="TIME", help="for the images made from the teacher")
    parser.add_argument("--ranges", nargs="+", default=["minmax"], choices=get_args(Ranges))
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of timing per file and batch size")
    for flag in ("--arch", "--input-size", "--mean", "--std"):
        parser.add_argument(flag)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="existing folder in which the files stay")
    given = parser.parse_args()
    mean, std = parse_channels("--mean", given.mean), parse_channels("--std", given.std)
    options = LoadOptions(arch=given.arch, input_size=parse_size(given.input_size), mean=mean, std=std)
    with tempfile.TemporaryDirectory() if given.keep is None else nullcontext(given.keep) as folder:
        files = _write_files(given.teacher, options, parse_budget(given.budget), given.ranges, Path(folder))
        right = _accuracies(files, given.data)
        timed = [(str(path), options) for path in files.values()]
        speeds = [benchmark(timed, torch.device("cpu"), batch, given.seconds) for batch in BATCHES]
    print("| file | accuracy | MB | latency, ms | images/s in batches of 32 |\n|---|---|---|---|---|")
    for name, one, many in zip(files, *speeds, strict=True):
        size = (one.file_bytes or 0) / 1e6
        print(f"| {name} | {right[name]:.2%} | {size:.2f} | {one.latency_ms:.3f} | {many.images_per_s:,.0f} |")


def _write_files(
    teacher: str, options: LoadOptions, budget: float, all_ranges: list[Ranges], folder: Path
) -> dict[str, Path]:
    """Write the files into the folder and return their paths by name, single precision first."""
    single = folder / "fp32.onnx"
    export(ExportJob(teacher, options, "onnx", single, False, dynamic_batch=True, with_preprocessing=False))
    network, files = load_classifier(teacher, options), {"fp32": single}
    images = {"generated images": generated_calibration(network, budget), "noise": _noise(network)}
    for name, calibration in images.items():
        for ranges in all_ranges:
            content, report = quantise(single.read_bytes(), network, calibration, Int8Job(ranges=ranges), False)
            path = folder / f"{ranges} {name}.onnx"
            path.write_bytes(content)
            files[f"int8, {ranges} of {name}"] = path
            on_all = f"{report.agreement_on_all:.4f} on all {report.all_images}"
            print(f"{ranges}, {name}: agreement {report.agreement:.4f} on {report.compared_on}, {on_all}", flush=True)
    files["int8, onnxruntime's dynamic"] = _dynamic(single)
    return files


def _noise(network: Classifier) -> Calibration:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (NOISE_IMAGES, *network.spec.size), generator=rng, dtype=torch.uint8)
    return Calibration(images, torch.zeros(NOISE_IMAGES, network.spec.num_classes), "synthetic", "", "")


def _dynamic(single: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = single.with_name("dynamic.onnx")
    quantize_dynamic(single, path, weight_type=QuantType.QUInt8)  # its ConvInteger takes no int8 weights
    return path


def _accuracies(files: dict[str, Path], data: str) -> dict[str, float]:
    """Return the accuracy of each file on all images, which are decoded once."""
    networks = {name: load_onnx(str(path), LoadOptions()) for name, path in files.items()}
    images = open_dataset(data, next(iter(networks.values())).spec)
    right = dict.fromkeys(networks, 0)
    with torch.no_grad():
        for batch, labels in images.batches(250):
            for name, network in networks.items():
                right[name] += int((network(batch).argmax(1) == labels).sum())
    return {name: count / len(images) for name, count in right.items()}


if __name__ == "__main__":
    main()
