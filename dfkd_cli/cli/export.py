"""`dfkd export`: a network as a file that other programs run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dfkd_cli.cli import options

if TYPE_CHECKING:
    from dfkd_cli.export.export import ExportReport

_OUTPUTS = {
    "logits": "logits of {} classes",
    "softmax": "probabilities of {} classes",
    "sigmoid": "numbers from 0 to 1, one for each of {} classes",
    "score": "one number, above 0 for the second of {} classes",
    "probability": "one number, the probability of the second of {} classes",
}


def export(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="Folder or file of a student, or any network dfkd compresses.")
    ],
    to: Annotated[
        Literal["onnx", "torchscript", "pt2"],
        typer.Option(help="What to write. onnx needs the extra: pip install 'dfkd\\[export]'."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to. Default: beside NETWORK, under its name.")
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Take any number of images. Default: one at a time.")
    ] = False,
    with_preprocessing: Annotated[
        bool,
        typer.Option("--with-preprocessing", help=r"Normalise inside the file: it takes images in \[0, 1]."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: options.Json = False,
    arch: options.Arch = None,
    num_classes: options.NumClasses = None,
    input_size: options.InputSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    output: options.Output = None,
    trust_pickle: options.TrustPickle = False,
) -> object:
    """Write NETWORK as ONNX, TorchScript or a torch.export archive.

    The file is compared with PyTorch on noise and on synthetic images before it is kept. TorchScript and pt2 files say
    everything about themselves, so dfkd reads them without further flags.
    """
    load = options.load_options(arch, num_classes, input_size, mean, std, output, trust_pickle)

    from dfkd_cli.export.export import ExportJob, export

    report = export(ExportJob(network, load, to, out, overwrite, dynamic_batch, with_preprocessing))
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        return report
    print(_summary(report))
    return None


def _summary(report: ExportReport) -> str:
    takes = "images in [0, 1]" if report.preprocessing else f"(images - {_row(report.mean)}) / {_row(report.std)}"
    lines = [
        f"written  {report.path}, {report.file_bytes / 1e6:,.2f} MB",
        f"input    {' x '.join(map(str, report.input_shape))}, {takes}",
        f"output   {_OUTPUTS[report.returned].format(report.num_classes)}",
    ]
    lines += [
        f"compared with PyTorch on {seen.count} images ({seen.images}): same class on {seen.same_top1}, "
        f"outputs up to {seen.largest_output:.3g} differ by at most {seen.largest_difference:.1e}"
        for seen in report.comparisons
    ]
    return "\n".join(lines)


def _row(values: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
