"""Settings of a process's memory on a CPU."""

import ctypes
import re
import sys
from pathlib import Path

from dfkd_cli.machine.world.launch import launched_place

UNLIMITED = 2**60
RESERVE = 2**28  # bytes, for code that libraries generate when memory is short
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h
_USUAL_TRIM_THRESHOLD, _USUAL_MMAP_MAX = 128 * 1024, 65536


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step instead of returning it to the system; no effect elsewhere.

    Otherwise every large tensor of every step is mapped again, page by page, which takes an eighth of a round in bf16
    and a fifth in fp32.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)


def fail_before_memory_is_used_up() -> None:
    """Make an allocation beyond the memory that is free now fail, on Linux; no effect elsewhere.

    After a failed allocation batches are computed in parts. Without the limit Linux grants the memory and kills the
    process later. The soft limit is RESERVE below the hard one; `make_room` raises it.
    """
    if sys.platform != "linux":
        return
    import resource

    free = min(_kilobytes(Path("/proc/meminfo"), "MemAvailable") * 1024, free_in_container(Path("/sys/fs/cgroup")))
    granted = free // launched_place().local_size + _kilobytes(Path("/proc/self/status"), "VmData") * 1024
    soft, hard = _limits()
    hard = min(hard, granted)
    resource.setrlimit(resource.RLIMIT_DATA, (min(soft, hard - RESERVE), hard))


def make_room() -> None:
    """Return kept memory to the system and add the reserve to the limit, after memory ran out.

    Undoes `keep_freed_memory`, because the kept pieces can be too small for the next tensors. Libraries that generate
    code need memory from the system and cannot use kept memory.
    """
    if sys.platform != "linux":
        return
    import resource

    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        library.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD)
        library.malloc_trim(0)
    soft, hard = _limits()
    if soft < UNLIMITED:
        resource.setrlimit(resource.RLIMIT_DATA, (min(soft + RESERVE, hard), hard))


def _limits() -> tuple[int, int]:
    """Return the soft and the hard limit of the process's data in bytes."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    infinite = resource.RLIM_INFINITY
    return UNLIMITED if soft == infinite else soft, UNLIMITED if hard == infinite else hard


def free_in_container(folder: Path) -> int:
    """Return the bytes that the control group (version 2) in `folder` still grants; UNLIMITED without a limit."""
    try:
        limit = (folder / "memory.max").read_text(encoding="utf-8").strip()
        (used,) = re.findall(r"^anon (\d+)", (folder / "memory.stat").read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        return UNLIMITED
    return max(int(limit) - int(used), 0) if limit.isdecimal() else UNLIMITED


def _kilobytes(file: Path, name: str) -> int:
    """Return the value of a line `name: value kB`."""
    (number,) = re.findall(rf"^{name}:\s+(\d+) kB", file.read_text(encoding="utf-8"), re.MULTILINE)
    return int(number)
