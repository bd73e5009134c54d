"""`dfkd compress` in two processes, with the environment variables of `torchrun`."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from command_line import LOOK, TINY_RUN, save_teacher
from forked_command import ForkedCommand

from dfkd_cli.training.checkpoint import Checkpoints

RUN = (*LOOK, *TINY_RUN, "--student", "cifar_resnet8", "--precision", "fp32", "--set", "train.steps=12")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pt")


def start_two(*arguments: object) -> tuple[list[ForkedCommand], object]:
    """Start the command in two processes; also return the store that `torchrun` would hold."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # pyright: ignore[reportPrivateImportUsage]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [ForkedCommand(*arguments, environment=dict(os.environ) | common | place) for place in places], store


def finish(commands: list[ForkedCommand]) -> list[int | None]:
    return [command.wait().returncode for command in commands]


def saved_step(out: Path) -> int:
    return Checkpoints(out.with_name(f".{out.name}.unfinished") / "checkpoints").step() or 0


def test_a_lost_process_ends_the_other_and_the_run_goes_on_bit_for_bit(teacher, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    both, _store = start_two("compress", teacher, *RUN, "--out", whole)
    assert finish(both) == [0, 0], [command.stderr for command in both]
    assert "student" in both[0].stdout
    assert both[1].stdout == both[1].stderr == ""

    both, _store = start_two("compress", teacher, *RUN, "--out", out, "--checkpoint-every", 1)
    both[0].wait_until(lambda: saved_step(out) >= 3)
    both[1].send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    assert finish(both) == [1, -signal.SIGKILL]
    assert time.monotonic() - killed_at < 30.0
    (error,) = [line for line in both[0].stderr.splitlines() if not line.startswith(("note: ", " ", "100"))]
    assert error.startswith("error: another of the 2 processes has ended or cannot be reached")
    assert error.endswith(f"--resume {out}")
    assert not out.exists()

    both, _store = start_two("compress", teacher, *RUN, "--resume", out)
    assert finish(both) == [0, 0], [command.stderr for command in both]
    assert (out / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()


def test_a_mistake_is_told_once(teacher, tmp_path):
    both, _store = start_two("compress", teacher, *RUN, "--out", tmp_path / "out", "--set", "train.batch_size=7")
    assert finish(both) == [2, 2]
    told = [line for command in both for line in command.stderr.splitlines() if line.startswith("error: ")]
    assert told == [
        "error: train.batch_size=7 cannot be shared by 2 processes, with at least two images each; "
        "use a multiple of 2, such as 8"
    ]
