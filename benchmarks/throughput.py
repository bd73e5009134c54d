"""Speed of a step and a round of `ssd`, compared with bare PyTorch loops: `make bench-throughput`.

The bare loops train the same networks on one constant batch with the same precision, memory format and compilation.
They have no buffer, augmentation, priorities or BatchNorm statistics. Both sides run in turns in one process, so that
other load on the machine slows both. The result is the ratio of the medians, one line each for `student` and
`synthesis`.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from dfkd_cli.machine.allocator import keep_freed_memory
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.machine.runtime import Runtime, choose_dtype
from dfkd_cli.methods import METHODS
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.networks.modes import frozen
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.students.student import build_student
from dfkd_cli.synthesis.source import GeneratedImages
from dfkd_cli.synthesis.trainer import GeneratorTrainer
from dfkd_cli.training.clock import StepClock
from dfkd_cli.training.distillation import losses
from dfkd_cli.training.engine import Distillation
from dfkd_cli.training.optimizer import make_optimizer, suited_optimizer
from dfkd_cli.training.setting import Setting

SPEC = InputSpec((3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), num_classes=10)
Step = Callable[[], object]


def main() -> None:
    """Print images per second of both sides and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", default="cifar_resnet20")
    parser.add_argument("--student", default="cifar_resnet8")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=15, help="of 4 steps per side")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()
    device = resolve_device(arguments.device)
    runtime = Runtime(device, choose_dtype(arguments.precision, device), not arguments.no_compile)
    print(f"{device}, {runtime.dtype}, compiled: {runtime.compiles}, torch {torch.__version__}")
    loop = make_loop(arguments.teacher, arguments.student, runtime)
    compare(
        "student",
        bare_student_step(loop),
        lambda: loop.student_step(0.5),
        loop.config.batch_size,
        arguments.rounds,
        device,
    )
    config = trainer_of(loop).config
    size = config.batch_size * config.steps
    with frozen(loop.setting.student):
        compare("synthesis", bare_round(loop), lambda: loop.round(0.5), size, arguments.rounds, device)


def make_loop(teacher_name: str, student_name: str, runtime: Runtime, overrides: Sequence[str] = ()) -> Distillation:
    """Return a training loop of `ssd` after its warm-up; `overrides` are values of the recipe."""
    torch.manual_seed(0)
    recipe = load_recipe("ssd", ["options.warmup.rounds=0", *overrides])
    teacher = runtime.place(build_student(teacher_name, SPEC)).eval().requires_grad_(False)
    setting = Setting(
        teacher,
        runtime.place(build_student(student_name, SPEC)),
        batch_size=recipe.train.batch_size,
        augmentation=recipe.augmentation,
        runtime=runtime,
        rng=torch.Generator(runtime.device).manual_seed(0),
    )
    method = METHODS["ssd"].build(setting, recipe.options)
    loop = Distillation(method, setting, recipe.train, StepClock(10**6))
    while not method.source.ready(0.0):
        loop.round(0.0)
    return loop


def trainer_of(loop: Distillation) -> GeneratorTrainer:
    """Return the generator of a loop whose method generates its images."""
    source = loop.method.source
    assert isinstance(source, GeneratedImages)
    return source.trainer


def bare_student_step(loop: Distillation) -> Step:
    """Return a step of the student on one constant batch: forward of both networks, backward, optimizer."""
    setting, config = loop.setting, loop.config
    images = setting.runtime.images(torch.rand(config.batch_size, *SPEC.size, device=setting.runtime.device))
    slow = replace(config, lr=1e-6, muon_lr=1e-6, adamw_lr=1e-6)
    optimizer = make_optimizer(setting.student, suited_optimizer(setting.student), slow)

    def step() -> None:
        with setting.runtime.autocast():
            with torch.no_grad():
                teacher = setting.teacher_forward(images)
            student = setting.student_forward(images)
        loss = losses.kl_div(student, teacher, 4.0).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    setting.student.train()
    return step


def bare_round(loop: Distillation) -> Step:
    """Return a round of the generator on constant noise: forward of all networks, backward, Adam."""
    setting, trainer = loop.setting, trainer_of(loop)
    noise, _ = trainer.draw(trainer.config.batch_size)
    labels = torch.arange(len(noise), device=noise.device) % SPEC.num_classes
    optimizer = torch.optim.Adam(trainer.generator.parameters(), 1e-8)
    teacher_forward = setting.runtime.compile(setting.teacher)

    def step() -> None:
        for _ in range(trainer.config.steps):
            with setting.runtime.autocast():
                images = setting.runtime.images(trainer.forward(noise, None))
                teacher, student = teacher_forward(images), setting.student_forward(images)
            loss = F.cross_entropy(teacher.float(), labels) - losses.kl_div(student, teacher).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return step


def compare(name: str, bare: Step, ours: Step, images: int, rounds: int, device: torch.device) -> None:
    """Measure both steps in turns and print one line with the ratio of their speeds."""
    speed = measure({"bare": bare, "dfkd": ours}, images, rounds, device)
    print(
        f"{name:<10} {speed['dfkd']:>8,.0f} images/s, bare loop {speed['bare']:>8,.0f} images/s, "
        f"ratio {speed['dfkd'] / speed['bare']:.3f}"
    )


def measure(steps: Mapping[str, Step], images: int, rounds: int, device: torch.device) -> dict[str, float]:
    """Return the images per second of steps of `images`, measured in turns, by their names."""
    for step in (*steps.values(), *steps.values()):  # the first calls compile
        step()
    times: dict[str, list[float]] = {side: [] for side in steps}
    for _ in range(rounds):
        for side, step in steps.items():
            begun = time.perf_counter()
            for _ in range(4):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[side].append((time.perf_counter() - begun) / 4)
    return {side: images / statistics.median(seconds) for side, seconds in times.items()}


if __name__ == "__main__":
    main()
