"""Checkpoint files are complete, two of them are kept, and damage is detected."""

import errno
import os
import resource

import pytest
import torch

from dfkd_cli.training.checkpoint import Checkpoints, Interval


def state(step: int) -> dict:
    return {"weights": torch.full((3,), float(step)), "step": step, "notes": ["text"]}


def fail(*_: object) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_the_newest_comes_back_and_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.step() is None
    for step in (5, 10, 7):  # step 7 after a restart from step 5
        checkpoints.save(state(step), step)
    loaded = checkpoints.load(pytest.fail)
    assert loaded is not None
    assert torch.equal(loaded["weights"], state(7)["weights"])
    assert checkpoints.step() == loaded["step"] == 7
    assert len(os.listdir(checkpoints.folder)) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_one_falls_back_and_is_not_taken_for_the_newest_again(tmp_path, damage):
    checkpoints, said = Checkpoints(tmp_path), []
    checkpoints.save(state(1), 1)
    checkpoints.save(state(2), 2)
    newest = checkpoints.found()[-1]
    content = newest.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    newest.write_bytes({"cut": content[:-1], "flipped": flipped, "empty": b""}[damage])
    loaded = checkpoints.load(said.append)
    assert loaded is not None
    assert loaded["step"] == checkpoints.step() == 1
    assert len(said) == 1
    assert "step 2 is damaged" in said[0]


def test_only_damaged_ones_stay_where_they_are(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1), 1)
    checkpoints.found()[0].write_bytes(b"")
    assert checkpoints.load(lambda _: None) is None
    assert checkpoints.step() == 1


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_earlier_ones(tmp_path, monkeypatch, call):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1), 1)
    before = os.listdir(tmp_path)
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="full"):
        checkpoints.save(state(2), 2)
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize("room", [100, 5_000, 100_000])
def test_a_disk_that_is_full_in_the_middle_of_a_file_leaves_the_earlier_ones(tmp_path, room):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1), 1)
    before = os.listdir(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            checkpoints.save({"weights": [torch.rand(20_000), torch.rand(20_000)]}, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == before


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"code": os.system}, 1)
    with pytest.raises(Exception, match="Weights only"):
        checkpoints.load(pytest.fail)


@pytest.mark.parametrize(
    ("interval", "seconds", "steps", "over"),
    [
        (Interval(seconds=60.0), 59.0, 10**6, False),
        (Interval(seconds=60.0), 60.0, 0, True),
        (Interval(steps=5), 1e9, 4, False),
        (Interval(steps=5), 0.0, 5, True),
    ],
)
def test_an_interval_is_over_by_time_or_by_steps(interval, seconds, steps, over):
    assert interval.over(seconds, steps) is over
