"""Signals ask first and stop at once the second time."""

import os
import signal

import pytest

from dfkd_cli.interruption import SIGNALS, Interruption


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_signal_asks_and_the_second_stops(capfd, first, second):
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption() as interruption:
        assert not interruption.requested
        os.kill(os.getpid(), first)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), second)
    assert "once more" in capfd.readouterr().err
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interruption.requested
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
