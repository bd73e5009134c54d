"""Networks side by side: speed, size and memory, measured in turns so that a busy machine slows all of them."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.loading.sniff import is_onnx
from dfkd_cli.loading.weights_file import file_bytes
from dfkd_cli.networks.cost import activation_bytes, macs_per_image, weight_bytes
from dfkd_cli.networks.onnx_file import open_onnx

WARM_UP = 3  # calls of each kind per network before anything counts
SINGLES = 10  # forwards of one image in a turn, and one of a batch after them
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Speed:
    """One network's figures. None: this form does not tell."""

    source: str
    kind: str
    arch: str | None
    input_size: tuple[int, int, int]
    parameters: int
    macs: int | None  # multiply-accumulate operations for one image
    file_bytes: int | None
    latency_ms: float  # for one image: median
    latency_p95_ms: float
    images_per_s: float  # in batches of batch_size: median
    batch_size: int  # a file with a fixed batch takes its own
    memory_bytes: int | None  # weights, and the most that the tensors of one such batch hold at once


@dataclass(frozen=True)
class Speeds:
    """What `dfkd benchmark --json` prints."""

    device: str
    threads: int
    torch: str
    networks: tuple[Speed, ...]


@dataclass
class Candidate:
    """A network to measure: what is known of it beforehand, what runs it, and the seconds it took."""

    about: dict[str, Any]  # the fields of Speed that need no clock
    run: Callable[[Tensor], Any]
    batch: Tensor  # one batch of its images
    singles: list[float] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)

    def speed(self) -> Speed:
        """What the measured seconds come to."""
        return Speed(
            **self.about,
            latency_ms=1000.0 * statistics.median(self.singles),
            latency_p95_ms=1000.0 * sorted(self.singles)[int(0.95 * (len(self.singles) - 1) + 0.5)],
            images_per_s=len(self.batch) / statistics.median(self.batches),
            batch_size=len(self.batch),
        )


def benchmark(
    sources: list[tuple[str, LoadOptions]], device: torch.device, batch_size: int, seconds: float
) -> list[Speed]:
    """Figures of each network, in the order given, after about `seconds` of measuring per network.

    Images are random, weights and images single precision. Raises what the loader raises, and TeacherError for an
    ONNX file that onnxruntime cannot run.
    """
    candidates = [_candidate(source, options, device, batch_size) for source, options in sources]
    for candidate in candidates:
        for _ in range(WARM_UP):
            take_turn(candidate, device)
        candidate.singles.clear()
        candidate.batches.clear()
    end, rounds = time.perf_counter() + seconds * len(candidates), 0
    while rounds < FEWEST_ROUNDS or time.perf_counter() < end:
        for candidate in candidates:
            take_turn(candidate, device)
        rounds += 1
    return [candidate.speed() for candidate in candidates]


@torch.inference_mode()
def take_turn(candidate: Candidate, device: torch.device) -> None:
    """Adds the seconds of several single images and of one batch."""
    for _ in range(SINGLES):
        candidate.singles.append(_seconds(candidate.run, candidate.batch[:1], device))
    candidate.batches.append(_seconds(candidate.run, candidate.batch, device))


def _seconds(run: Callable[[Tensor], Any], images: Tensor, device: torch.device) -> float:
    begun = time.perf_counter()
    run(images)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


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
        "parameters": network.parameter_count(),
        "macs": macs_per_image(network),
        "file_bytes": file_bytes(source),
        "memory_bytes": weight_bytes(network) + activation_bytes(network, batch),
    }
    return Candidate(about, network, batch)


def _onnx_candidate(source: str, batch_size: int) -> Candidate:
    """An ONNX file in onnxruntime, on the CPU with as many threads as torch uses."""
    path = Path(source)
    network = open_onnx(path, torch.get_num_threads())
    batch = torch.rand(network.batch_size or batch_size, *network.input_size)
    about = {
        "source": source,
        "kind": "ONNX",
        "arch": None,
        "input_size": network.input_size,
        "parameters": network.parameters,
        "macs": None,
        "file_bytes": path.stat().st_size,
        "memory_bytes": None,
    }
    return Candidate(about, network, batch)
