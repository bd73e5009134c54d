"""Converts errors of libraries on damaged files to one readable line, and silences their log output."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from dfkd_cli.errors import DfkdError, TeacherError, first_line

# Instruction for a user whose state dict fits no known architecture.
EXPORT_LINES = (
    "export it where its class is defined: `traced = torch.jit.trace(model.eval(), torch.rand(64, C, H, W))`, "
    "`torch.jit.save(traced, 'teacher.pt')`, and give that file to dfkd with --input-size, --mean and --std"
)
PT2_LINES = (
    "export it to a .pt2 file: `torch.export.save(torch.export.export(model.eval(), (torch.rand(2, C, H, W),), "
    "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), 'teacher.pt2')`"
)
OTHER_FRAMEWORK = f"dfkd needs a network of PyTorch: load the weights into one of the same layers, and {PT2_LINES}"


@contextlib.contextmanager
def damaged_file(path: Path | str, what: str) -> Iterator[None]:
    """Raise TeacherError in place of any error inside the block, which contains one library call.

    Every type is caught: on damaged input torch raises RuntimeError, KeyError, AssertionError, UnicodeDecodeError,
    struct.error and others, in combinations that differ between versions.
    """
    try:
        yield
    except DfkdError:
        raise
    except Exception as error:
        raise TeacherError(f"{path} looks like {what} but cannot be read: {first_line(error)}") from error


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Suppress warnings, and log lines of the named loggers, inside the block."""
    before = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
