"""A run's folder is complete or untouched."""

import errno
import os
from pathlib import Path

import pytest

from dfkd_cli.compression.output_folder import OutputFolder
from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.export.forms import EXPORT_FORMS
from dfkd_cli.machine.files import write_atomically


def fill(folder: Path, text: str) -> None:
    (folder / "report.json").write_text(text)


def run_until(stop: type[BaseException], output: OutputFolder) -> None:
    with output as folder:
        fill(folder, "half")
        raise stop


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("make", [False, True], ids=["missing", "empty"])
def test_result_appears_only_when_the_block_ends(tmp_path, make):
    out = tmp_path / "deep" / "out"
    if make:
        out.mkdir(parents=True)
    with OutputFolder(out) as folder:
        fill(folder, "new")
        assert not (out / "report.json").exists()
    assert names(out) == ["report.json"]
    assert names(tmp_path / "deep") == ["out"]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failed_run_leaves_nothing_behind(tmp_path, stop):
    with pytest.raises(stop):
        run_until(stop, OutputFolder(tmp_path / "deep" / "out"))
    assert names(tmp_path) == []


def test_folder_that_holds_something_is_refused(tmp_path):
    fill(tmp_path, "old")
    with pytest.raises(UsageError, match=r"not empty.*report\.json.*--overwrite"):
        OutputFolder(tmp_path)


def test_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        OutputFolder(tmp_path / "out", overwrite=True)


def test_overwrite_replaces_the_whole_folder(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "old")
    (out / "samples.png").write_text("stale")
    with OutputFolder(out, overwrite=True) as folder:
        fill(folder, "new")
        assert (out / "report.json").read_text() == "old"
    assert names(out) == ["report.json"]
    assert (out / "report.json").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_failed_overwrite_keeps_the_old_content(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "old")
    with pytest.raises(RuntimeError):
        run_until(RuntimeError, OutputFolder(out, overwrite=True))
    assert (out / "report.json").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_overwrite_never_deletes_files_of_others(tmp_path):
    fill(tmp_path, "old")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        OutputFolder(tmp_path, overwrite=True)


@pytest.mark.parametrize("own", [False, True], ids=["foreign", "own"])
def test_overwrite_deletes_a_model_file_only_if_it_is_the_student(tmp_path, own):
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "old")
    (out / "student.safetensors").write_text("weights")
    if own:
        (out / "model.safetensors").symlink_to("student.safetensors")
        OutputFolder(out, overwrite=True)
        (out / "model.safetensors").unlink()
    (out / "model.safetensors").write_text("weights" if own else "somebody else's")
    if own:
        OutputFolder(out, overwrite=True)
        return
    with pytest.raises(UsageError, match=r"model\.safetensors, which dfkd did not write"):
        OutputFolder(out, overwrite=True)
    (out / "student.safetensors").unlink()
    with pytest.raises(UsageError, match=r"model\.safetensors, which dfkd did not write"):
        OutputFolder(out, overwrite=True)


def test_files_that_appear_during_the_run_are_safe(tmp_path):
    out = tmp_path / "out"
    output = OutputFolder(out)
    fill(output.__enter__(), "new")
    out.mkdir()
    fill(out, "somebody else's")
    kept = tmp_path / ".out.unfinished" / "finished"
    with pytest.raises(UsageError, match=rf"out is not empty \(it holds report\.json\); .* left in {kept}: move"):
        output.__exit__(None, None, None)
    assert (out / "report.json").read_text() == "somebody else's"
    assert (kept / "report.json").read_text() == "new"


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_finished_result_that_cannot_be_moved_is_kept_until_it_is_fetched(tmp_path, monkeypatch, checkpoint):
    out, kept = tmp_path / "out", tmp_path / ".out.unfinished" / "finished"
    output = OutputFolder(out)
    fill(output.__enter__(), "new")
    if checkpoint:
        output.checkpoints.save({"step": 7}, 7)
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "_move_into_place", lambda _: os.rename(tmp_path / "nowhere", out))
        with pytest.raises(DfkdError, match=f"cannot write {out}: No such file or directory; .* left in {kept}: move"):
            output.__exit__(None, None, None)
    for resume in (False, True):
        with pytest.raises(UsageError, match=f"a finished result.*move it yourself from {kept}, or .*--overwrite"):
            OutputFolder(out, resume=resume)
    kept.rename(out)
    assert names(out) == ["report.json"]
    with OutputFolder(tmp_path / "out", overwrite=True) as folder:
        fill(folder, "newer")
    assert names(tmp_path) == ["out"]


def test_a_finished_result_is_replaced_when_asked(tmp_path):
    output = OutputFolder(tmp_path / "out")
    fill(output.__enter__(), "new")
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match="out is a file; the finished result"):
        output.__exit__(None, None, None)
    (tmp_path / "out").unlink()
    with OutputFolder(tmp_path / "out", overwrite=True) as folder:
        fill(folder, "newer")
    assert (tmp_path / "out" / "report.json").read_text() == "newer"
    assert names(tmp_path) == ["out"]


def test_overwrite_goes_through_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    fill(tmp_path / "disk", "old")
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with OutputFolder(tmp_path / "out", overwrite=True) as folder:
        fill(folder, "new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "report.json").read_text() == "new"


def test_full_disk_is_one_line_and_leaves_the_old_content(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "old")
    with pytest.raises(DfkdError, match="full") as caught, OutputFolder(out, overwrite=True):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.exit_code == 1
    assert names(tmp_path) == ["out"]
    assert (out / "report.json").read_text() == "old"


def test_other_os_errors_keep_their_traceback(tmp_path):
    with pytest.raises(FileNotFoundError), OutputFolder(tmp_path / "out"):
        (tmp_path / "missing").read_text()


def test_folder_below_a_file_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write below"), OutputFolder(tmp_path / "file" / "out"):
        pass


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "student.safetensors"
    write_atomically(path, b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["student.safetensors"]


def stop_after_a_checkpoint(output: OutputFolder, stop: BaseException) -> None:
    with output as folder:
        fill(folder, "half")
        output.checkpoints.save({"step": 7}, 7)
        raise stop


@pytest.mark.parametrize("stop", [RuntimeError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_run_with_a_checkpoint_stays_hidden_until_it_is_resumed(tmp_path, stop):
    out = tmp_path / "deep" / "out"
    with pytest.raises(DfkdError if isinstance(stop, OSError) else type(stop)) as caught:
        stop_after_a_checkpoint(OutputFolder(out), stop)
    if isinstance(stop, OSError):
        assert (
            str(caught.value)
            == f"the disk that holds {out} is full; free some space, then continue with --resume {out}"
        )
    assert names(out.parent) == [".out.unfinished"]
    output = OutputFolder(out, resume=True)
    assert output.stopped_at() == 7
    with output as folder:
        assert (folder / "report.json").read_text() == "half"
        fill(folder, "whole")
    assert names(out) == ["report.json"]
    assert names(out.parent) == ["out"]


def test_an_unfinished_run_is_not_replaced_without_being_asked(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError):
        stop_after_a_checkpoint(OutputFolder(out), RuntimeError())
    with pytest.raises(UsageError, match=r"step 7.*--resume .*out, or start anew with --overwrite"):
        OutputFolder(out)
    with OutputFolder(out, overwrite=True) as folder:
        assert names(folder) == []
    assert names(tmp_path) == ["out"]


def test_resuming_an_overwriting_run_keeps_the_old_result_until_the_end(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "old")
    with pytest.raises(KeyboardInterrupt):
        stop_after_a_checkpoint(OutputFolder(out, overwrite=True), KeyboardInterrupt())
    assert (out / "report.json").read_text() == "old"
    with pytest.raises(UsageError, match="not empty"):
        OutputFolder(out, resume=True)
    with OutputFolder(out, overwrite=True, resume=True) as folder:
        fill(folder, "new")
        assert (out / "report.json").read_text() == "old"
    assert (out / "report.json").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_a_process_that_dies_while_it_cleans_up_leaves_a_finished_result(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "_remove_unfinished", lambda _: None)
        with OutputFolder(out) as folder:
            fill(folder, "new")
            OutputFolder(out, overwrite=True).checkpoints.save({"step": 7}, 7)
    assert names(tmp_path) == [".out.unfinished", "out"]
    with pytest.raises(UsageError, match="a finished result"):
        OutputFolder(out, resume=True)
    with OutputFolder(out, overwrite=True) as folder:
        fill(folder, "newer")
    assert names(tmp_path) == ["out"]


def test_a_run_without_a_checkpoint_is_swept_away_by_the_next(tmp_path):
    killed = tmp_path / ".out.unfinished"
    (killed / "result").mkdir(parents=True)
    (killed / "lock").touch()
    fill(killed / "result", "killed")
    with OutputFolder(tmp_path / "out") as folder:
        assert names(folder) == []
    assert names(tmp_path) == ["out"]


def test_overwriting_takes_exports_of_the_earlier_student_along(tmp_path):
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out", "old")
    for form in EXPORT_FORMS.values():
        (tmp_path / "out" / f"student{form.suffix}").touch()
    with OutputFolder(tmp_path / "out", overwrite=True) as folder:
        fill(folder, "new")
    assert names(tmp_path / "out") == ["report.json"]
