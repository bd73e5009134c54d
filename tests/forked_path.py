"""The command `dfkd` for shell scripts: a small program that has it run forked from a process with PyTorch."""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from forked_command import ForkedCommand

PROGRAM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    server.sendall(json.dumps([sys.argv[1:], dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    code, stdout, stderr = json.load(server.makefile())
sys.stdout.write(stdout)
sys.stderr.write(stderr)
sys.exit(code)
"""


@contextmanager
def folder_with_command() -> Iterator[Path]:
    """Return a context with a folder for PATH, whose `dfkd` runs in this process's working directory."""
    with TemporaryDirectory(prefix="dfkd-") as name, socket.socket(socket.AF_UNIX) as server:
        address = str(Path(name) / "socket")
        server.bind(address)
        server.listen()
        program = Path(name) / "dfkd"
        program.write_text(PROGRAM.format(python=sys.executable, address=address))
        program.chmod(0o700)
        answering = Thread(target=_answer, args=(server,), daemon=True)
        answering.start()
        yield Path(name)
        server.shutdown(socket.SHUT_RDWR)  # ends `accept`
        answering.join()


def _answer(server: socket.socket) -> None:
    """Run the commands that arrive, one after the other."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, connection.makefile("rw") as stream:
            words, environment = json.load(stream)
            done = ForkedCommand(*words, environment=environment).wait()
            json.dump([done.returncode, done.stdout, done.stderr], stream)
