"""Run a function in two processes that form a world, connected through a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from forked_command import SERVER

from dfkd_cli.machine.world.world import World

LONGEST_WAIT_S = 240.0  # only against hanging


def run_in_two(function: Callable[[World], Any], folder: Path) -> list[Any]:
    """Return what the function returns in both processes: dictionaries of tensors, numbers and text."""
    processes = [SERVER.Process(target=_run, args=(rank, function, folder), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LONGEST_WAIT_S)
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"result {rank}", weights_only=True) for rank in range(2)]


def _run(rank: int, function: Callable[[World], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    world = World(rank, 2, dist.FileStore(str(folder / "store"), 2))  # pyright: ignore[reportPrivateImportUsage]
    result = function(world)
    world.close()
    torch.save(result, folder / f"result {rank}")
