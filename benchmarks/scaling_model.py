"""The time of a student step and of a round of `ssd` on several GPUs, as a formula of counted and assumed numbers.

ImageNet, ResNet-50 to ResNet-18, images of 3x224x224. Every input is a field of `Inputs` and says whether it was
counted, measured or assumed. docs/scaling.md explains the formula.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

Kind = Literal["counted", "measured", "assumed"]
BATCH, STEPS, ROUND_EVERY, WARMUP_ROUNDS = 128, 20_000, 12, 150  # of the recipe
FLOPS_PER_MAC = 2
NODE = 8  # GPUs of one machine


def given(kind: Kind, value: float, shown: str, meaning: str, source: str) -> Any:
    """Return a field of `Inputs` with the text of its row in the table of inputs."""
    return field(default=value, metadata={"kind": kind, "shown": shown, "meaning": meaning, "source": source})


counted, measured, assumed = partial(given, "counted"), partial(given, "measured"), partial(given, "assumed")


@dataclass(frozen=True)
class Inputs:
    """What the calculation begins with: multiply-accumulates, bytes, seconds, and operations or bytes per second."""

    step_macs: float = counted(
        9.413e9, "9.413 GMAC", "student step, per image", "teacher forward 4.089; student forward and backward 5.324"
    )
    round_macs: float = counted(
        12.913e9,
        "12.913 GMAC",
        "round, per image",
        "generator 1.106; teacher 8.178 and student 3.628, forward and gradient of the images",
    )
    muon_macs: float = counted(
        22.398e9,
        "22.398 GMAC",
        "orthogonalisation in Muon, per student step and process",
        "20 filters, 2 m² n + 20 m³ each; m is the smaller side, n the larger one",
    )
    gradient_bytes: float = counted(
        46_758_048,
        "46.76 MB",
        "gradient of the student, in 2 buckets",
        "11,689,512 parameters in float32; buckets of 28.84 and 17.92 MB",
    )
    step_exchanges: int = counted(
        41,
        "41",
        "small exchanges of a student step, one after the other",
        "20 BatchNorm layers, forward and backward, 76.8 kB in all; 1 for the stage of equal shape",
    )
    round_exchanges: int = counted(
        32,
        "32",
        "exchanges of a round, one after the other",
        "12 BatchNorm layers, `bn` and `balance`, forward and backward; 3 of class shares; 1 of the gradient",
    )
    round_bytes: float = counted(
        2.60e6,
        "2.60 MB",
        "bytes of these exchanges, without those of `balance`",
        "gradient of the generator 2.092, its BatchNorm layers 0.055, `bn` 0.425, class shares 0.024",
    )
    step_operations: int = counted(
        2356, "2,356", "operations of a student step, not compiled", "calls of torch, without views"
    )
    round_operations: int = counted(
        3660,
        "3,660",
        "operations of a round, not compiled",
        "the same at 64x64 pixels, where the generator has two blocks fewer",
    )
    student_ratio: float = measured(
        0.913,
        "0.913",
        "speed of a student step, relative to a bare loop",
        "ResNet-20 to ResNet-8 on 2 CPU cores ([notes](../benchmarks/notes/throughput.md)); assumed for the GPU",
    )
    round_ratio: float = measured(0.923, "0.923", "speed of a round, relative to a bare loop", "the same")
    peak: float = assumed(312e12, "312 TFLOP/s", "peak of a GPU in bfloat16", "NVIDIA A100, data sheet")
    used: float = assumed(
        0.2,
        "20 %",
        "share of it that a bare loop reaches, whatever its batch",
        "NVIDIA publishes 2,470 images/s for ResNet-50 training on an A100, which is 19 %",
    )
    float32: float = assumed(
        0.4 * 19.5e12,
        "40 % of 19.5 TFLOP/s",
        "speed of the orthogonalisation",
        "A100 in float32, data sheet, without TF32, which dfkd does not switch on; the share is a guess",
    )
    latency_inside: float = assumed(20e-6, "20 µs", "small exchange among 8 GPUs of one machine", "a guess for NCCL")
    latency_between: float = assumed(60e-6, "60 µs", "small exchange among 64 GPUs of 8 machines", "a guess for NCCL")
    bandwidth_inside: float = assumed(
        200e9,
        "200 GB/s",
        "ring of 8 GPUs of one machine",
        "NVLink; as users of nccl-tests report for 8 A100 (issue 149)",
    )
    bandwidth_between: float = assumed(
        25e9, "25 GB/s", "ring of 64 GPUs of 8 machines", "one link of 200 Gbit/s per machine"
    )
    launch: float = assumed(5e-6, "5 µs", "time of the host per operation", "a guess for PyTorch without compilation")
    hop: float = assumed(
        25e-6, "25 µs", "time of a message from one process to the next, on the host", "a guess for gloo over TCP"
    )


@dataclass(frozen=True)
class Time:
    """The parts of a student step or a round in seconds. The host works ahead of the GPU, so the slower one counts."""

    networks: float
    orthogonalisation: float
    small: float  # exchanges whose latency counts
    gradient: float  # exchange whose bytes count
    host: float

    @property
    def gpu(self) -> float:
        """Return the seconds of the GPU, which does one thing after the other."""
        return self.networks + self.orthogonalisation + self.small + self.gradient

    @property
    def whole(self) -> float:
        """Return the seconds until the next step or round can begin."""
        return max(self.gpu, self.host)


@dataclass(frozen=True)
class Case:
    """So many GPUs with `times` the batches and the buffer of the recipe."""

    inputs: Inputs
    gpus: int
    times: int

    @property
    def step(self) -> Time:
        """Return the time of a student step."""
        i, share = self.inputs, self.times * BATCH / self.gpus
        networks = FLOPS_PER_MAC * share * i.step_macs / (i.peak * i.used * i.student_ratio)
        small, gradient = i.step_exchanges * self.latency, self.ring(i.gradient_bytes) + 2 * self.latency
        flag = 2 * (self.gpus - 1) * i.hop  # gloo passes it along a ring, twice
        host = i.step_operations * i.launch + flag
        return Time(networks, FLOPS_PER_MAC * i.muon_macs / i.float32, small, gradient, host)

    @property
    def round(self) -> Time:
        """Return the time of a round."""
        i, share = self.inputs, 2 * self.times * BATCH / self.gpus
        networks = FLOPS_PER_MAC * share * i.round_macs / (i.peak * i.used * i.round_ratio)
        return Time(
            networks, 0.0, i.round_exchanges * self.latency, self.ring(i.round_bytes), i.round_operations * i.launch
        )

    @property
    def latency(self) -> float:
        """Return the seconds of a small exchange."""
        inside = self.inputs.latency_inside if self.gpus > 1 else 0.0
        return inside if self.gpus <= NODE else self.inputs.latency_between

    def ring(self, size: float) -> float:
        """Return the seconds in which a ring passes `size` bytes, without the latency."""
        bandwidth = self.inputs.bandwidth_inside if self.gpus <= NODE else self.inputs.bandwidth_between
        return 2 * (self.gpus - 1) / self.gpus * size / bandwidth

    @property
    def mean_step(self) -> float:
        """Return the seconds of a student step with its share of a round."""
        return self.step.whole + self.round.whole / ROUND_EVERY

    @property
    def images_per_s(self) -> float:
        """Return the images that the student learns from in a second, after the warm-up."""
        return self.times * BATCH / self.mean_step

    def hours(self, steps: float) -> float:
        """Return the hours of the warm-up and of so many steps."""
        return (WARMUP_ROUNDS * self.round.whole + steps * self.mean_step) / 3600
