"""`dfkd export`: write a network as ONNX, TorchScript or torch.export archive."""

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
    "sigmoid": "one number from 0 to 1 for each of {} classes",
    "score": "one number, which is above 0 for the second of {} classes",
    "probability": "one number, the probability of the second of {} classes",
}


def export(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="Folder or file of a student, or any TEACHER of compress.")
    ],
    to: Annotated[
        Literal["onnx", "torchscript", "pt2"],
        typer.Option(
            metavar="FORMAT", help="onnx (needs pip install 'dfkd\\[export]'), torchscript, or pt2 (torch.export)."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write. Default: beside NETWORK, with its name.")
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Accept batches of any size. Default: one image.")
    ] = False,
    with_preprocessing: Annotated[
        bool,
        typer.Option("--with-preprocessing", help=r"Include the normalisation: the file takes images in \[0, 1]."),
    ] = False,
    class_map: Annotated[
        bool,
        typer.Option("--class-map", help="Output the class of each pixel in place of logits (segmentation networks)."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: options.Json = False,
    arch: options.Arch = None,
    prefix: options.Prefix = None,
    num_classes: options.NumClasses = None,
    input_size: options.InputSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    crop_pct: options.CropPct = None,
    interpolation: options.InterpolationOption = None,
    crop_mode: options.CropModeOption = None,
    output: options.Output = None,
    trust_pickle: options.TrustPickle = False,
    strict: options.Strict = False,
    task: options.TaskOption = None,
) -> object:
    """Write NETWORK as ONNX, TorchScript or a torch.export archive.

    Compares the outputs of the file with those of PyTorch, on noise and on synthetic images, and deletes the file when
    they differ. dfkd reads TorchScript and pt2 files of its own without further options.
    """
    load = options.load_options(
        arch,
        prefix,
        num_classes,
        input_size,
        mean,
        std,
        output,
        trust_pickle,
        strict,
        task,
        crop_pct,
        interpolation,
        crop_mode,
    )

    from dfkd_cli.export.export import ExportJob, export

    report = export(ExportJob(network, load, to, out, overwrite, dynamic_batch, with_preprocessing, class_map))
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        return report
    print(_summary(report))
    return None


def _summary(report: ExportReport) -> str:
    from dfkd_cli.report.quantities import counted

    takes = "images in [0, 1]" if report.preprocessing else f"(images - {_row(report.mean)}) / {_row(report.std)}"
    lines = [
        f"written  {report.path}, {report.file_bytes / 1e6:,.2f} MB",
        f"input    {' x '.join(map(str, report.input_shape))}, {takes}",
        f"output   {_output(report)}",
    ]
    lines += [
        f"checked  {counted(seen.count, 'image')} ({seen.images}): same class for {seen.same_top1}, largest difference "
        f"{seen.largest_difference:.1e} at outputs up to {seen.largest_output:.3g}"
        for seen in report.comparisons
    ]
    return "\n".join(lines)


def _output(report: ExportReport) -> str:
    if report.class_map:
        return f"the class of each pixel, of {report.num_classes} classes"
    return _OUTPUTS[report.returned].format(report.num_classes)


def _row(values: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
