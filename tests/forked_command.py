"""The command line in separate processes, forked from one that has imported PyTorch.

The installed command takes seconds to start, most of them for imports, and dozens of tests need a process: for an exit
code, a signal or a terminal. A few tests start the installed command.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from dfkd_cli.cli import main

LONGEST_WAIT_S = 240.0  # only against hanging
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["torch", "torchvision", "timm", "dfkd_cli.compression.compress", "dfkd_cli.evaluation.accuracy", "dfkd_cli.cli"]
)


class ForkedCommand:
    """A running `dfkd` with these arguments. Its output goes to files, which can be read while it runs."""

    def __init__(
        self,
        *arguments: object,
        entry: Callable[[], None] = main,
        environment: dict[str, str] | None = None,
        terminal: str | None = None,
    ):
        folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, folder)
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        outputs = str(self._stdout), terminal or str(self._stderr)
        settings = dict(os.environ) if environment is None else environment
        words = list(map(str, arguments))
        threads = torch.get_num_threads()  # the last bits of the weights depend on it
        run = (entry, words, os.getcwd(), settings, outputs, threads)
        self._process = SERVER.Process(target=_run, args=run, daemon=True)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """The exit code as of `subprocess.Popen`: None while it runs, minus the number of the killing signal."""
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """The standard output so far."""
        return self._stdout.read_text() if self._stdout.exists() else ""

    @property
    def stderr(self) -> str:
        """The standard error so far."""
        return self._stderr.read_text() if self._stderr.exists() else ""

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds. Fails when the command ends first."""
        end = time.monotonic() + LONGEST_WAIT_S
        while True:
            ended = self.returncode is not None  # before the condition, which the end of the command may fulfil
            if condition():
                return
            assert not ended, self.stderr
            assert time.monotonic() < end, self.stderr
            time.sleep(0.01)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the command, unless it has ended."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def wait(self) -> "ForkedCommand":
        """Wait for the end of the command and return it."""
        self._process.join(LONGEST_WAIT_S)
        assert self.returncode is not None, self.stderr
        return self


def _run(
    entry: Callable[[], None],
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    outputs: tuple[str, str],
    threads: int,
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOCTTY, 0o600), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent process ignores Ctrl-C
    torch.set_num_threads(threads)
    sys.argv = ["dfkd", *arguments]
    entry()
