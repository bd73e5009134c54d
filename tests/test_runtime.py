"""How a run computes: precision, compilation that may fail, and where the time went."""

import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dfkd_cli.machine.runtime import TIMED_SECONDS, Runtime, choose_dtype
from dfkd_cli.networks import EagerNetwork
from dfkd_cli.networks.classifier import Classifier, InputSpec, Origin
from dfkd_cli.networks.half_precision import strides_over_smaller_maps
from dfkd_cli.training.stopwatch import Stopwatch

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_precision_asked_for_is_used(precision, dtype):
    assert choose_dtype(precision, CPU) is dtype


@pytest.mark.parametrize(("bf16_seconds", "dtype"), [(0.5, torch.bfloat16), (0.9, torch.float32), (2.0, torch.float32)])
def test_auto_takes_bf16_only_where_it_measures_clearly_faster(monkeypatch, bf16_seconds, dtype):
    seconds = {torch.float32: 1.0, torch.bfloat16: bf16_seconds}
    monkeypatch.setattr("dfkd_cli.machine.runtime._conv_seconds", lambda kinds, _: [seconds[kind] for kind in kinds])
    assert choose_dtype("auto", CPU) is dtype


def test_a_type_that_is_slow_here_is_timed_in_few_rounds(monkeypatch):
    rounds = []

    def slow(dtype, device):
        return lambda: time.sleep(TIMED_SECONDS) if dtype is torch.bfloat16 else rounds.append(dtype)

    monkeypatch.setattr("dfkd_cli.machine.runtime._convolution", slow)
    assert choose_dtype("auto", CPU) is torch.float32
    assert len(rounds) == 2  # one that chooses the kernels, one that counts


def test_autocast_applies_to_what_runs_inside():
    layer, images = torch.nn.Conv2d(1, 2, 3), torch.rand(1, 1, 5, 5)
    with Runtime(CPU, torch.bfloat16).autocast():
        assert layer(images).dtype is torch.bfloat16
    with Runtime(CPU).autocast():
        assert layer(images).dtype is torch.float32


def test_a_function_that_cannot_be_compiled_runs_as_written_and_a_note_says_so(monkeypatch):
    def broken(function, dynamic):
        def call(*_):
            raise OSError("no C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    runtime = Runtime(CPU, compiles=True)
    double = runtime.compile(lambda value: 2 * value)
    assert [double(2), double(3)] == [4, 6]
    assert len(runtime.notes) == 1
    assert "speed" in runtime.notes[0]


def test_a_fault_of_the_function_itself_is_not_blamed_on_the_compiler(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    runtime = Runtime(CPU, compiles=True)
    with pytest.raises(ZeroDivisionError):
        runtime.compile(lambda value: 1 // value)(0)
    assert runtime.notes == []


def test_nothing_is_compiled_when_a_run_does_not_compile():
    assert Runtime(CPU).compile(abs) is abs


def test_the_stopwatch_adds_up_each_part(monkeypatch):
    readings = iter([1.0, 4.0, 10.0, 11.0, 20.0, 25.0])
    monkeypatch.setattr("dfkd_cli.training.stopwatch.time", SimpleNamespace(perf_counter=lambda: next(readings)))
    stopwatch = Stopwatch(CPU)
    for part in ("synthesis", "distillation", "synthesis"):
        with stopwatch.measure(part):
            pass
    assert stopwatch.totals() == {"synthesis": 8.0, "distillation": 1.0}


@pytest.mark.parametrize(("side", "stride", "small"), [(1, 2, True), (2, 2, True), (3, 2, False), (1, 1, False)])
def test_strided_filters_larger_than_their_maps_are_found(side, stride, small):
    module = nn.Sequential(nn.Conv2d(1, 3, 3, stride, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    spec = InputSpec((1, side, side), (0.0,), (1.0,), 3)
    classifier = Classifier(EagerNetwork(module, input_size=spec.size), spec, Origin("test", "test", None, None))
    assert strides_over_smaller_maps(classifier) == small
