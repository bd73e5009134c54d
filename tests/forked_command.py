"""The command line in processes of its own that begin where importing PyTorch ends: forks of one that has done it.

Starting the installed command takes seconds, most of them for imports, and dozens of tests want a process: an exit
code, a signal, a terminal. A few tests still start it as a user does.
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

LONGEST_WAIT_S = 240.0  # a guard against hanging, not an expectation
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["torch", "torchvision", "timm", "dfkd_cli.compression.compress", "dfkd_cli.evaluation.accuracy", "dfkd_cli.cli"]
)


class ForkedCommand:
    """`dfkd` with these arguments, running. What it prints is kept in files, which can be read meanwhile."""

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
        threads = torch.get_num_threads()  # they decide the last bits
        run = (entry, words, os.getcwd(), settings, outputs, threads)
        self._process = SERVER.Process(target=_run, args=run, daemon=True)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """As of `subprocess.Popen`: None while it runs, the negative number of the signal that killed it."""
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout.read_text() if self._stdout.exists() else ""

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._stderr.read_text() if self._stderr.exists() else ""

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Returns when the condition holds; fails when the command ends first."""
        end = time.monotonic() + LONGEST_WAIT_S
        while True:
            ended = self.returncode is not None  # asked first: the last that a command does may fulfil the condition
            if condition():
                return
            assert not ended, self.stderr
            assert time.monotonic() < end, self.stderr
            time.sleep(0.01)

    def send_signal(self, number: signal.Signals) -> None:
        """To the command alone; to nobody once it has ended."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def wait(self) -> "ForkedCommand":
        """This command, ended."""
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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the process forked from is deaf to Ctrl-C
    torch.set_num_threads(threads)
    sys.argv = ["dfkd", *arguments]
    entry()
