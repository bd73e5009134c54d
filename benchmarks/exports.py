"""Comparison of the predictions of exported files with those of PyTorch on a labelled data set.

python -m benchmarks.exports out/ --data DATA/cifar10/test
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dfkd_cli.data.datasets import open_dataset
from dfkd_cli.export.export import export
from dfkd_cli.export.forms import EXPORT_FORMS
from dfkd_cli.export.job import ExportJob
from dfkd_cli.loading import LoadOptions, load_classifier


def main() -> None:
    """Print one line per form: accuracy, images with another class than PyTorch's, largest difference of logits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student")
    parser.add_argument("--data", required=True, metavar="DIR")
    arguments = parser.parse_args()
    network = load_classifier(arguments.student)
    data = open_dataset(arguments.data, network.spec)
    runs: dict[str, Callable[[Tensor], Tensor]] = {"PyTorch": network}
    with tempfile.TemporaryDirectory() as folder:
        for name, form in EXPORT_FORMS.items():
            path = Path(folder) / f"student{form.suffix}"
            export(ExportJob(arguments.student, LoadOptions(), name, path, False, True, True))
            runs[name] = form.open(path.read_bytes())
    right, other, difference = (dict.fromkeys(runs, 0.0) for _ in range(3))
    with torch.no_grad():
        for images, labels in data.batches(250):
            logits = {name: run(images) for name, run in runs.items()}
            expected = logits["PyTorch"]
            for name, given in logits.items():
                right[name] += int((given.argmax(1) == labels).sum())
                other[name] += int((given.argmax(1) != expected.argmax(1)).sum())
                difference[name] = max(difference[name], float((given - expected).abs().max()))
    for name in runs:
        print(
            f"{name:<12} accuracy {right[name] / len(data):.4f} on {len(data):,} images, another class on "
            f"{other[name]:.0f}, logits differ by at most {difference[name]:.1e}"
        )


if __name__ == "__main__":
    main()
