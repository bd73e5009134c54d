"""What a command sets for its whole process before it trains."""

import subprocess
import sys

DENORMALS = """
import torch
from dfkd_cli.machine.new_thread import in_new_thread
from dfkd_cli.machine.process import prepare_process
torch.set_num_threads(2)
prepare_process(torch.device("{device}"))

def are_kept():
    return bool((torch.full((2**20,), 2e-38) * 0.01).any())

print(are_kept(), in_new_thread(are_kept))
"""


def test_denormals_are_zero_in_all_threads_of_a_process_that_trains_on_a_cpu():
    kept = {
        device: subprocess.run(
            [sys.executable, "-c", DENORMALS.format(device=device)], capture_output=True, text=True, check=True
        ).stdout.split()
        for device in ("cpu", "meta")
    }
    assert kept == {"cpu": ["False", "False"], "meta": ["True", "True"]}
