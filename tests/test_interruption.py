"""The first signal requests the end of a run, the second one ends it at once."""

import os
import signal
from collections.abc import Iterator

import pytest

from dfkd_cli.training.interruption import SIGNALS, Interruption

HANDLERS = (signal.default_int_handler, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def terminal_handlers() -> Iterator[None]:
    """Set the handlers of a terminal; Ctrl-C is ignored where the tests run in the background."""
    before = [signal.signal(number, handler) for number, handler in zip(SIGNALS, HANDLERS, strict=True)]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_signal_is_a_request_and_the_second_raises(capfd, first, second):
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption() as interruption:
        assert not interruption.requested
        os.kill(os.getpid(), first)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), second)
    assert "interrupt again" in capfd.readouterr().err
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_that_was_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert not interruption.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
