"""What a process does with memory it has freed."""

import subprocess
import sys

import pytest

from dfkd_cli.machine.allocator import UNLIMITED, free_in_container

# Five times 40 MB: mapped anew each time, they cost 10,240 page faults each (by itself glibc maps anew what is larger
# than 32 MB). Twenty before, since the heap grows by a few aligned pieces until a freed one fits: six here, nine and
# more elsewhere.
FAULTS = """
import resource, sys, torch
from dfkd_cli.machine.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(20):
    torch.ones(10 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(10 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_used_again_without_page_faults():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "default")
    }
    assert faults["keep"] < 0.2 * faults["default"]


MORE_THAN_FREE = """
import resource, torch
from dfkd_cli.machine import allocator
from dfkd_cli.errors import is_out_of_memory
free = allocator._kilobytes
allocator._kilobytes = lambda file, name: 800_000 if name == "MemAvailable" else free(file, name)
allocator.fail_before_memory_is_used_up()
torch.ones(60 * 2**20)
try:
    torch.ones(250 * 2**20)
except (MemoryError, RuntimeError) as error:
    print(is_out_of_memory(error))
before = resource.getrlimit(resource.RLIMIT_DATA)
for _ in range(3):
    allocator.make_room()
after = resource.getrlimit(resource.RLIMIT_DATA)
print(after[0] - before[0] == allocator.RESERVE, after[1] == before[1] == after[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's way with memory")
def test_more_than_the_free_memory_is_an_error_that_can_be_caught():
    done = subprocess.run([sys.executable, "-c", MORE_THAN_FREE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True", "True True"]  # the reserve opens once, and never beyond


@pytest.mark.parametrize(
    ("limit", "stat", "free"),
    [("1000000", "file 5\nanon 400000\n", 600_000), ("3", "anon 400\n", 0), ("max", "anon 1\n", UNLIMITED)],
)
def test_a_container_grants_its_limit_less_what_is_used(tmp_path, limit, stat, free):
    assert free_in_container(tmp_path) == UNLIMITED
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.stat").write_text(stat)
    assert free_in_container(tmp_path) == free
