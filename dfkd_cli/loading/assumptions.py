"""What a file does not state of its input and its weights show: size, mean and std are assumed, and said so."""

from dfkd_cli.loading.causes import cause_at_all_sizes, cause_at_any_size
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.input_conventions import Convention, assumed_normalisation, contradicts, describe
from dfkd_cli.loading.input_sizes import SIDES, find_input_size
from dfkd_cli.loading.input_statistics import InputStatistics, estimate_input_statistics
from dfkd_cli.loading.options import LoadOptions, listed
from dfkd_cli.loading.trial import Trial
from dfkd_cli.networks.base import Network
from dfkd_cli.networks.classifier import InputSpec

ONLY_SIZE = "trial forwards, which only this size passes"
FROM_STRIDES = "assumed from the network's strides"
FROM_BATCHNORM = "assumed from the first BatchNorm"
_OWN = ("timm's configuration", "the dfkd student's metadata", "dfkd.json")  # sources that are not checked
_IMAGES: dict[Convention, str] = {
    "normalised": "normalised images",
    "unit range": "images in [0, 1]",
    "bytes": "images from 0 to 255",
    "centred": "images in [-1, 1]",
}


def complete_size(trial: Trial, findings: Findings) -> None:
    """Add the input size to `findings` where it is missing.

    Raises UsageError when trial forwards do not show it, and other errors when something else than the size is wrong.
    """
    if "input_size" in findings.values:
        return
    channels = trial.channels() if findings.channels is None else [findings.channels]
    found = find_input_size(trial, channels, trial.quick)
    # An archive of one batch size fails quickly; its network finds this batch size, which takes more forwards.
    if found is None:
        if cause := cause_at_any_size(trial, channels):
            raise cause
        found = find_input_size(trial, channels, trial.built)
    if found is None:
        if cause := cause_at_all_sizes(trial, channels):
            raise cause
        if trial.refusal is not None:
            raise trial.refusal
        counts = " or ".join(map(str, channels))
        seen = f"the network accepts no square image of {SIDES[0]} to {SIDES[-1]} pixels with {counts} channels"
        findings.require("input_size", "mean", "std", seen=f"{seen} ({trial.failure})")
    elif found.only:
        findings.offer("input_size", found.size, ONLY_SIZE)
    elif found.downsampling is None:
        seen = "the network accepts images of several sizes, and its strides cannot be observed"
        findings.require("input_size", "mean", "std", seen=seen)
    else:
        shape = "x".join(map(str, found.size))
        note = (
            f"The input size is assumed to be {shape}: the network accepts several sizes, and this one is usual for "
            f"its total stride of {found.downsampling}; check with --input-size."
        )
        findings.assume("input_size", found.size, FROM_STRIDES, note)


def complete_normalisation(network: Network, findings: Findings, options: LoadOptions) -> None:
    """Add mean and std to `findings` where both are missing, or a note where those that are there look wrong.

    Raises UsageError when the weights do not show them, or when `options.strict` refuses what is assumed.
    """
    size = findings.values["input_size"]
    if "mean" not in findings.values and "std" not in findings.values:
        statistics = estimate(network, size)
        assumed = None if statistics is None else assumed_normalisation(statistics, size[0])
        if statistics is not None and assumed is not None:
            _assume_normalisation(findings, statistics, assumed)
        else:
            findings.unknown = _why_unknown(statistics)
    if options.strict:
        findings.refuse_assumptions()
    findings.require("mean", "std", seen=findings.unknown)


def contradiction(network: Network, spec: InputSpec, found: dict[str, str]) -> tuple[str, ...]:
    """Return one note when mean and std contradict the first BatchNorm's statistics, else none.

    Values that dfkd or timm wrote beside their own weights are not checked: a student's statistics are those of the
    images that it was trained on.
    """
    sources = tuple(dict.fromkeys((found["mean"], found["std"])))
    if found["mean"] == FROM_BATCHNORM or any(source.startswith(_OWN) for source in sources):
        return ()
    statistics = estimate(network, spec.size)
    sentence = None if statistics is None else contradicts(statistics, spec.mean, spec.std)
    return () if sentence is None else (f"Check mean and std from {' and '.join(sources)}: {sentence}.",)


def estimate(network: Network, size: tuple[int, int, int]) -> InputStatistics | None:
    """Return the statistics of the network's inputs, None where its weights do not show them."""
    try:
        return estimate_input_statistics(network, size)
    except RuntimeError:  # of a network from outside; nothing else depends on the estimate
        return None


def _assume_normalisation(
    findings: Findings, statistics: InputStatistics, assumed: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    mean, std = assumed
    note = (
        f"Mean and std are assumed to be {_rounded(mean)} and {_rounded(std)}: the first BatchNorm of the network was "
        f"trained on inputs with mean {_rounded(statistics.mean)} and std {statistics.std:.3g}, as "
        f"{_IMAGES[describe(statistics)]} give; check with --mean and --std."
    )
    findings.assume("mean", mean, FROM_BATCHNORM, note)
    findings.assume("std", std, FROM_BATCHNORM)


def _why_unknown(statistics: InputStatistics | None) -> str:
    if statistics is None:
        return "no BatchNorm after a first convolution shows mean and std"
    what = f"mean {_rounded(statistics.mean)} and std {statistics.std:.3g}"
    if not statistics.trusted:
        return f"the first BatchNorm does not show them reliably: {what} explain its statistics badly"
    return f"the first BatchNorm was trained on inputs with {what}, which no usual normalisation gives"


def _rounded(values: tuple[float, ...]) -> str:
    return listed(float(f"{value:.3g}") for value in values)
