"""`dfkd export`: write a network as ONNX, TorchScript or torch.export archive."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.arguments import NetworkFacts
from dfkd_cli.cli.signature import taking
from dfkd_cli.config.times import parse_budget
from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from dfkd_cli.export.export import ExportReport
    from dfkd_cli.export.int8 import Int8Job, Int8Report
    from dfkd_cli.export.job import ExportJob

_INT8 = "Files of 8 bits"
_BUDGET = "3m"

_OUTPUTS = {
    "logits": "logits of {} classes",
    "softmax": "probabilities of {} classes",
    "sigmoid": "one number from 0 to 1 for each of {} classes",
    "score": "one number, which is above 0 for the second of {} classes",
    "probability": "one number, the probability of the second of {} classes",
}


@dataclass(frozen=True, kw_only=True)
class Int8Arguments:
    """The options of a file of 8 bits. None, or False, means not given."""

    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Write 8 bits (onnx only), calibrated on the images in the calibration.safetensors beside NETWORK.",
            rich_help_panel=_INT8,
        ),
    ] = False
    int8_ranges: Annotated[
        Literal["minmax", "entropy", "percentile"] | None,
        typer.Option(help="How activations get their ranges. Default: minmax.", rich_help_panel=_INT8),
    ] = None
    int8_weights: Annotated[
        int | None,
        typer.Option(
            metavar="BITS",
            min=7,
            max=8,
            help="Bits of a weight: 7 is right on every processor, 8 only on ARM and on x86 with VNNI. Default: 7.",
            rich_help_panel=_INT8,
        ),
    ] = None
    int8_skip: Annotated[
        Literal["none", "auto"] | None,
        typer.Option(
            help="auto: leave the most sensitive layers in single precision if necessary. Default: none.",
            rich_help_panel=_INT8,
        ),
    ] = None
    min_agreement: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Smallest share of images with the class of NETWORK where it is certain (exit code 5). Default: 0.98.",
            rich_help_panel=_INT8,
        ),
    ] = None
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help=f"Time to make images from NETWORK if there is no calibration.safetensors. Default: {_BUDGET}.",
            rich_help_panel=_INT8,
        ),
    ] = None

    def int8_job(self) -> Int8Job | None:
        """Return the options of the export, None without --int8. Raises UsageError for an option without it."""
        given = [field.name for field in fields(Int8Arguments) if getattr(self, field.name) is not field.default]
        if not self.int8:
            if given:
                raise UsageError(f"--{given[0].replace('_', '-')} is for files of 8 bits; add --int8")
            return None

        from dfkd_cli.export.int8 import Int8Job

        named = {
            "ranges": self.int8_ranges,
            "weight_bits": self.int8_weights,
            "skip": self.int8_skip,
            "min_agreement": self.min_agreement,
        }
        return Int8Job(**{name: value for name, value in named.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class ExportArguments(NetworkFacts, Int8Arguments):
    """The arguments of `export`."""

    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="Folder or file of a student, or any TEACHER of compress.")
    ]
    to: Annotated[
        Literal["onnx", "torchscript", "pt2"],
        typer.Option(
            metavar="FORMAT", help="onnx (needs pip install 'dfkd\\[export]'), torchscript, or pt2 (torch.export)."
        ),
    ]
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write. Default: beside NETWORK, with its name.")
    ] = None
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Accept batches of any size. Default: one image.")
    ] = False
    with_preprocessing: Annotated[
        bool,
        typer.Option("--with-preprocessing", help=r"Include the normalisation: the file takes images in \[0, 1]."),
    ] = False
    class_map: Annotated[
        bool,
        typer.Option("--class-map", help="Output the class of each pixel in place of logits (segmentation networks)."),
    ] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False
    as_json: options.Json = False

    def job(self) -> ExportJob:
        """Return what to export, and how. Raises UsageError that names a wrong flag."""
        load = self.load_options()

        from dfkd_cli.export.job import ExportJob

        return ExportJob(
            source=self.network,
            load=load,
            to=self.to,
            out=self.out,
            overwrite=self.overwrite,
            dynamic_batch=self.dynamic_batch,
            with_preprocessing=self.with_preprocessing,
            class_map=self.class_map,
            int8=self.int8_job(),
        )


@taking(ExportArguments)
def export(arguments: ExportArguments) -> object:
    """Write NETWORK as ONNX, TorchScript or a torch.export archive.

    Compares the outputs of the file with those of PyTorch, on noise and on synthetic images, and writes no file when
    they differ. dfkd reads TorchScript and pt2 files of its own without further options.

    With --int8, weights and activations have 8 bits. Half of the calibration images gives the ranges of the
    activations; the other half decides with --min-agreement whether the file is written.
    """
    budget_s = parse_budget(arguments.budget or _BUDGET)
    job = arguments.job()

    from dfkd_cli.compression.images_for_int8 import calibrate
    from dfkd_cli.export.export import export

    report = export(job, partial(calibrate, arguments.network, budget=budget_s, note=_note))
    for note in report.notes:
        _note(note)
    if arguments.as_json:
        return report
    print(_summary(report))
    return None


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)


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
    lines += [] if report.int8 is None else _about_int8(report.int8)
    return "\n".join(lines)


def _output(report: ExportReport) -> str:
    if report.class_map:
        return f"the class of each pixel, of {report.num_classes} classes"
    return _OUTPUTS[report.returned].format(report.num_classes)


def _about_int8(int8: Int8Report) -> list[str]:
    from dfkd_cli.report.quantities import counted, share

    left = f", {counted(len(int8.in_fp32), 'layer')} in fp32: {', '.join(int8.in_fp32)}" if int8.in_fp32 else ""
    return [
        f"int8     {int8.fp32_bytes / 1e6:,.2f} MB in fp32, ranges {int8.ranges} of {int8.calibrated_on:,} "
        f"{int8.images} images{left}",
        f"         same class as fp32 for {share(int8.agreement)} of {int8.compared_on:,} other images "
        f"of which fp32 is certain, {share(int8.agreement_on_all)} of all {int8.all_images:,}",
    ]


def _row(values: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
