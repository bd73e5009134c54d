"""Join the processes that `torchrun` started."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from dfkd_cli.errors import DfkdError, first_line
from dfkd_cli.machine.world.errors import LostProcessError
from dfkd_cli.machine.world.launch import launched_place
from dfkd_cli.machine.world.watch import Watch
from dfkd_cli.machine.world.world import World


@contextmanager
def joined(device: torch.device, advice: str) -> Iterator[World]:
    """Return a context with the world of all processes, or a world of one without `torchrun`.

    `advice` tells the user what to do when a process is lost. Of the errors in all processes only the first one is
    shown. Raises DfkdError when the processes cannot be connected.
    """
    place = launched_place()
    if place.size == 1:
        yield World()
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, rank, size = next(dist.rendezvous("env://"))  # pyright: ignore[reportPrivateImportUsage]
        watch = Watch(store.clone(), rank, size, advice)
        world = World(rank, size, store, backend)
        world.at_close = watch.end
    except RuntimeError as error:
        raise DfkdError(f"cannot connect the {place.size} processes: {first_line(error)}") from error
    try:
        with watch:
            yield world
            world.close()
    except BaseException as error:
        watch.tell()
        if isinstance(error, LostProcessError):
            error.args = (f"{error}; {advice}",)
        if isinstance(error, DfkdError) and error.shown is None:
            error.shown = watch.is_first_to_tell()
        raise
    finally:
        world.open = False
        if dist.is_initialized():
            dist.destroy_process_group()
