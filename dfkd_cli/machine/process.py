"""Settings of a process that trains on a CPU."""

import torch

from dfkd_cli.machine.allocator import fail_before_memory_is_used_up, keep_freed_memory


def prepare_process(device: torch.device) -> None:
    """Set memory and arithmetic of a process that computes on a CPU; no effect for another device.

    Denormal numbers become zero, because a CPU computes with them up to a hundred times slower. They are frequent among
    the gradients of segmentation, which are divided by the number of pixels: a step takes 1.7 to 2.3 times as long with
    them. Threads inherit this from the thread that creates them, so it has to come before the first computation.

    All of it changes the whole process, so only commands call this, and no function for Python users.
    """
    if device.type == "cpu":
        keep_freed_memory()
        fail_before_memory_is_used_up()
        torch.set_flush_denormal(True)
