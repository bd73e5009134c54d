"""The function of `dfkd benchmark`: speed, size and memory of networks.

The networks are timed in turns, so that other load on the machine slows all of them alike.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkd_cli.data.datasets import open_dataset
from dfkd_cli.data.label_options import LabelOptions
from dfkd_cli.data.reading import ReadOptions
from dfkd_cli.errors import UsageError
from dfkd_cli.evaluation.accuracy import measure_accuracy
from dfkd_cli.evaluation.evaluate import Source, load_network
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.loading.onnx import open_onnx
from dfkd_cli.loading.sniff import is_onnx
from dfkd_cli.loading.weights_file import file_bytes
from dfkd_cli.networks.cost import activation_bytes, macs_per_image, weight_bytes

UNTIMED_TURNS = 3  # of each network, before its times are kept
SINGLES = 10  # forwards of one image in a turn; one forward of a batch follows
MIN_TURNS = 3
SHORT_S = 0.5  # of a measurement of the latency alone


@dataclass(frozen=True)
class Speed:
    """Figures of one network. None: the network's form does not give the figure."""

    source: str
    kind: str
    arch: str | None
    input_size: tuple[int, int, int]
    input_size_found: str  # where the size was found; begins with "assumed" if nothing states it
    parameters: int
    macs: int | None  # multiply-accumulate operations for one image
    file_bytes: int | None
    latency_ms: float  # median, for one image
    latency_p95_ms: float
    images_per_s: float  # median, in batches of batch_size
    batch_size: int  # that of the file, if the file fixes it
    memory_bytes: int | None  # weights, and the peak of the tensors of one forward of such a batch
    accuracy: float | None = None  # on labelled images, a fraction; None without them


@dataclass(frozen=True)
class Speeds:
    """What `dfkd benchmark --json` prints."""

    device: str
    threads: int
    torch: str
    networks: tuple[Speed, ...]


@dataclass(frozen=True)
class EvaluationData:
    """The labelled images that the accuracy is measured on, and how they are read."""

    where: str  # as `open_dataset` takes it
    read_options: ReadOptions
    labels: LabelOptions


@dataclass
class Candidate:
    """A network to time: its known figures, how to run it, and the seconds that its forwards took."""

    about: dict[str, Any]  # the fields of Speed that are not timed
    run: Callable[[Tensor], Any]
    batch: Tensor  # [B, C, H, W]
    singles: list[float] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)

    def speed(self) -> Speed:
        """Return the figures that follow from the seconds."""
        return Speed(
            **self.about,
            latency_ms=1000.0 * statistics.median(self.singles),
            latency_p95_ms=1000.0 * sorted(self.singles)[int(0.95 * (len(self.singles) - 1) + 0.5)],
            images_per_s=len(self.batch) / statistics.median(self.batches),
            batch_size=len(self.batch),
        )


def _ignore(text: str) -> None:
    pass


def benchmark(
    sources: list[Source],
    device: torch.device,
    batch_size: int,
    seconds: float,
    data: EvaluationData | None = None,
    note: Callable[[str], None] = _ignore,
) -> list[Speed]:
    """Return the figures of each network, in the given order, after about `seconds` of measurement per network.

    Times are those of random images, and the accuracy is that on the labelled images of `data`, if there are any;
    `note` receives one sentence for each thing that the user should know about their files. Raises what
    `load_classifier`, `open_dataset` and `measure_accuracy` raise, and TeacherError for an ONNX file that onnxruntime
    cannot run.
    """
    candidates = [_candidate(source, options, device, batch_size) for source, options in sources]
    if data is not None:
        for text in _add_accuracies(candidates, sources, data, device, batch_size):
            note(text)
    for candidate in candidates:
        for _ in range(UNTIMED_TURNS):
            take_turn(candidate, device)
        candidate.singles.clear()
        candidate.batches.clear()
    end, turns = time.perf_counter() + seconds * len(candidates), 0
    while turns < MIN_TURNS or time.perf_counter() < end:
        for candidate in candidates:
            take_turn(candidate, device)
        turns += 1
    return [candidate.speed() for candidate in candidates]


@torch.inference_mode()
def take_turn(candidate: Candidate, device: torch.device) -> None:
    """Time several forwards of one image and one of a batch, and add the seconds to `candidate`."""
    for _ in range(SINGLES):
        candidate.singles.append(_seconds(candidate.run, candidate.batch[:1], device))
    candidate.batches.append(_seconds(candidate.run, candidate.batch, device))


@torch.inference_mode()
def latency_ms(run: Callable[[Tensor], Any], size: tuple[int, int, int], device: torch.device) -> float:
    """Return the median milliseconds of `run` for one random image of `size` (C, H, W), measured for half a second."""
    # A generator of its own, because a plan measures between random draws.
    image = torch.rand(1, *size, generator=torch.Generator().manual_seed(0)).to(device)
    for _ in range(UNTIMED_TURNS):
        _seconds(run, image, device)
    end, singles = time.perf_counter() + SHORT_S, []
    while len(singles) < SINGLES or time.perf_counter() < end:
        singles.append(_seconds(run, image, device))
    return 1000.0 * statistics.median(singles)


def _seconds(run: Callable[[Tensor], Any], images: Tensor, device: torch.device) -> float:
    begun = time.perf_counter()
    run(images)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def _add_accuracies(
    candidates: list[Candidate], sources: list[Source], data: EvaluationData, device: torch.device, batch_size: int
) -> list[str]:
    """Add the accuracies to what is known of the candidates, and return sentences for the user about the files.

    A sentence that holds for several networks is returned once.
    """
    notes: list[str] = []
    for candidate, (source, options) in zip(candidates, sources, strict=True):
        network = load_network(source, options)
        if network.spec.task == "segmentation":
            raise UsageError(f"--data: {source} is a segmentation network; measure it with dfkd evaluate --data")
        images = open_dataset(data.where, network.spec, options=data.read_options, labels=data.labels)
        candidate.about["accuracy"] = measure_accuracy(network, images, device, batch_size=batch_size).accuracy
        notes += [*images.contents.notes(data.where), *(images.reader.notes() if images.reader else ())]
    return list(dict.fromkeys(notes))


def _candidate(source: str, options: LoadOptions, device: torch.device, batch_size: int) -> Candidate:
    if is_onnx(source):
        return _onnx_candidate(source, batch_size)
    network = load_classifier(source, options).to(device)
    batch = torch.rand(batch_size, *network.spec.size, device=device)
    about = {
        "source": source,
        "kind": network.origin.kind,
        "arch": network.origin.arch,
        "input_size": network.spec.size,
        "input_size_found": network.origin.found["input_size"],
        "parameters": network.parameter_count(),
        "macs": macs_per_image(network),
        "file_bytes": file_bytes(source),
        "memory_bytes": weight_bytes(network) + activation_bytes(network, batch),
    }
    return Candidate(about, network, batch)


def _onnx_candidate(source: str, batch_size: int) -> Candidate:
    """Open an ONNX file with onnxruntime, on the CPU, with as many threads as torch uses."""
    path = Path(source)
    network = open_onnx(path, torch.get_num_threads())
    batch = torch.rand(network.batch_size or batch_size, *network.input_size)
    about = {
        "source": source,
        "kind": "ONNX int8" if network.quantised else "ONNX",
        "arch": None,
        "input_size": network.input_size,
        "input_size_found": "the ONNX graph's input",
        "parameters": network.parameters,
        "macs": None,
        "file_bytes": path.stat().st_size,
        "memory_bytes": None,
    }
    return Candidate(about, network, batch)
