"""Train for some rounds and steps in two processes, and the same with all of their images in one process."""

from typing import Any

import torch
from tiny_methods import make, warm
from torch import Tensor, nn

from dfkd_cli.machine.world.world import World
from dfkd_cli.methods import METHODS
from dfkd_cli.training.method import Batch, StudentTerms

# SGD leaves the gradients as they are, unlike Muon. Random views are drawn in each process, which cannot be replayed;
# priorities are those of the images in a process's own share.
SETTINGS = ("train.optimizer=sgd",)
OF_METHOD = {"csd": ("options.augment_synthesis=false",), "ssd": ("options.priority=false",)}
OF_A_SHARE = {"priority/discrepancy"}  # logged means over a share, which do not average to that of all images
STEPS = 4


def settings(name: str) -> tuple[str, ...]:
    return (*SETTINGS, *OF_METHOD.get(name, ()))


def record_all(world: World) -> dict[str, Any]:
    """Train with every method in this process of a world; return what `record` returns, by method."""
    recorded = {name: record(name, world) for name in METHODS}
    return recorded | {"narrowed": record("ssd", world, share=0.6), "memory": run_out_of_memory(world)}


def run_out_of_memory(world: World) -> dict[str, Any]:
    """Do a step during which the memory of the second process runs out, and return its parts and the weights."""
    loop = warm(make("ssd", *SETTINGS, world=world))
    compute = loop.method.loss.compute

    def too_large(batch: Batch, progress: float) -> StudentTerms:
        terms = compute(batch, progress)
        if world.rank == 1 and len(batch.images) == 4:
            raise MemoryError
        return terms

    loop.method.loss.compute = too_large
    terms = [loop.student_step(0.0)["loss"].item(), loop.student_step(0.5)["loss"].item()]
    return {"parts": loop.accumulation.parts.count, "terms": terms, "weights": loop.trained.state_dict()}


def record(name: str, world: World, share: float | None = None) -> dict[str, Any]:
    """Return the noise and the batches of this process, and the outcome."""
    loop = make(name, *settings(name), share=share, world=world)
    source, batches, noise = loop.method.source, [], []
    if METHODS[name].needs.pool:
        warm(loop)
    else:
        draw = source.trainer.draw
        source.trainer.draw = lambda count: _kept(noise, draw(count))
    sample = source.sample

    def keep_batch() -> Batch:
        drawn = len(noise)
        batch = sample()
        del noise[drawn:]  # a source without memory draws its batches, which are replayed whole
        return _kept(batches, batch)

    source.sample = keep_batch
    outcome = _train(name, loop)
    return {"outcome": outcome, "noise": list(noise), "batches": list(batches), "state": loop.state_dict()}


def replay(name: str, recorded: list[dict[str, Any]], share: float | None = None) -> dict[str, Any]:
    """Return the outcome of one process that gets the noise and the batches of two."""
    loop = make(name, *settings(name), share=share)
    source = loop.method.source
    if not METHODS[name].needs.pool:
        noise = iter([_joined(pair) for pair in zip(*(one["noise"] for one in recorded), strict=True)])
        source.trainer.draw = lambda count: next(noise)
    batches: Any = iter(
        [Batch(*_joined(pair, index=2)) for pair in zip(*(one["batches"] for one in recorded), strict=True)]
    )
    source.sample = lambda: next(batches)
    return _train(name, loop)


def _train(name: str, loop: Any) -> dict[str, Any]:
    """Return the gradients of the first step and the terms of all steps; the order of rounds and steps is fixed."""
    outcome: dict[str, Any] = {"terms": []}
    rounds = not METHODS[name].needs.pool
    if rounds:
        _keep_first_gradients(loop.method.source.trainer, outcome)
    for step in range(STEPS):
        for _ in range(0 if not rounds else 3 if step == 0 else 1):
            terms = loop.round(step / STEPS)
        terms = loop.student_step(step / STEPS)
        shared = terms.keys() - OF_A_SHARE
        outcome["terms"].append({key: loop.world.mean(terms[key].detach().float()) for key in sorted(shared)})
        if step == 0:
            outcome["student"] = _gradients(loop.trained)
            if hasattr(loop.method.loss, "task"):
                outcome["head"] = _gradients(loop.method.loss.task.head)
    return outcome


def _keep_first_gradients(trainer: Any, outcome: dict[str, Any]) -> None:
    """Keep the gradients of the generator's first step; later ones differ, because Adam's steps multiply rounding."""
    fit = trainer.parts.fit

    def keeping(*arguments: Any) -> Any:
        result = fit(*arguments)
        outcome.setdefault("generator", _gradients(trainer.generator))
        return result

    trainer.parts.fit = keeping


def _gradients(module: nn.Module) -> dict[str, Tensor]:
    named = module.named_parameters()
    return {name: value.grad.detach().clone() for name, value in named if value.grad is not None}


def _kept(kept: list[Any], value: Any) -> Any:
    kept.append(tuple(one.detach().clone() if one is not None else None for one in value))
    return value


def _joined(pair: tuple[tuple, ...], index: int | None = None) -> tuple[Any, ...]:
    """Return the tensors of both processes, one row of each in turn: the order of the images in a shared memory."""
    joined: list[Tensor | None] = []
    for place, values in enumerate(zip(*pair, strict=True)):
        if values[0] is None:
            joined.append(None)
            continue
        if place == index:
            values = [2 * value + rank for rank, value in enumerate(values)]
        joined.append(torch.stack(list(values), dim=1).flatten(0, 1))
    return tuple(joined)
