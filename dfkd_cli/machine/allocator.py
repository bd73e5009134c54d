"""How a process gets its memory on a processor."""

import ctypes
import re
import sys
from pathlib import Path

UNLIMITED = 2**60
RESERVE = 2**28  # bytes, for code that libraries generate
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h
_USUAL_TRIM_THRESHOLD, _USUAL_MMAP_MAX = 128 * 1024, 65536


def keep_freed_memory() -> None:
    """Tells glibc to keep what is freed for the next step instead of giving it back; elsewhere nothing.

    Otherwise every large tensor of every step is mapped anew, page by page: measured, an eighth of a synthesis step in
    bf16 and a fifth in fp32.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)


def fail_before_memory_is_used_up() -> None:
    """Makes an allocation beyond the memory that is free now fail, on Linux; elsewhere nothing.

    A failed allocation is answered by smaller batches. Linux would promise the memory and kill the process later. A
    reserve is held back until `make_room`: its size is the distance from the soft limit to the hard one.
    """
    if sys.platform != "linux":
        return
    import resource

    free = min(_kilobytes(Path("/proc/meminfo"), "MemAvailable") * 1024, free_in_container(Path("/sys/fs/cgroup")))
    granted = free + _kilobytes(Path("/proc/self/status"), "VmData") * 1024
    soft, hard = _limits()
    hard = min(hard, granted)
    resource.setrlimit(resource.RLIMIT_DATA, (min(soft, hard - RESERVE), hard))


def make_room() -> None:
    """Once memory ran out: undoes `keep_freed_memory`, whose pieces may be too small for what comes next.

    Opens the reserve too: libraries ask the system for the code they generate, and kept memory is no use to them.
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
    """The soft and the hard limit of this process's data, in bytes."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    infinite = resource.RLIM_INFINITY
    return UNLIMITED if soft == infinite else soft, UNLIMITED if hard == infinite else hard


def free_in_container(folder: Path) -> int:
    """Bytes that a control group (version 2) with its files in `folder` still grants; very many without a limit."""
    try:
        limit = (folder / "memory.max").read_text(encoding="utf-8").strip()
        (used,) = re.findall(r"^anon (\d+)", (folder / "memory.stat").read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        return UNLIMITED
    return max(int(limit) - int(used), 0) if limit.isdecimal() else UNLIMITED


def _kilobytes(file: Path, name: str) -> int:
    (number,) = re.findall(rf"^{name}:\s+(\d+) kB", file.read_text(encoding="utf-8"), re.MULTILINE)
    return int(number)
