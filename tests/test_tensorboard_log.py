"""The metrics of a run, read with TensorBoard."""

import sys
from pathlib import Path

import pytest

from dfkd_cli.cli.progress import NoProgress
from dfkd_cli.errors import UsageError
from dfkd_cli.training.event import Event
from dfkd_cli.training.tensorboard_log import TensorBoardLog

ESCAPES = "ignore::DeprecationWarning"  # of tensorboard's own modules


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(entry.step, entry.value) for entry in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.filterwarnings(ESCAPES)
def test_every_number_stands_at_its_step(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra 'tensorboard'")
    with TensorBoardLog(tmp_path / "tb", NoProgress()) as log:
        log.event(Event("warm-up", 0, 0.0, 0, {"synthesis/bn": 8.0}))
        log.event(Event("warm-up", 0, 0.0, 0, {"synthesis/bn": 4.0}))
        log.event(Event("training", 50, 0.5, 400, {"loss": 2.0, "buffer/class_shares": [0.25, 0.75]}))
    assert scalars(tmp_path / "tb") == {
        "warm-up/synthesis/bn": [(1, 8.0), (2, 4.0)],
        "loss": [(50, 2.0)],
        "buffer/class_shares/0": [(50, 0.25)],
        "buffer/class_shares/1": [(50, 0.75)],
    }


@pytest.mark.filterwarnings(ESCAPES)
def test_nothing_is_written_before_the_first_event(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra 'tensorboard'")
    with TensorBoardLog(tmp_path / "tb", NoProgress()) as log:
        log.note("a sentence")
    assert not (tmp_path / "tb").exists()


@pytest.mark.filterwarnings(ESCAPES)
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra 'tensorboard'")
    (tmp_path / "file").touch()
    with TensorBoardLog(tmp_path / "file" / "tb", NoProgress()) as log, pytest.raises(UsageError, match="cannot write"):
        log.event(Event("training", 1, 0.5, 8, {"loss": 1.0}))


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(UsageError, match=r"dfkd\[tensorboard\]"):
        TensorBoardLog(tmp_path / "tb", NoProgress())
