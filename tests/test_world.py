"""Two processes compute what one computes with the images of both."""

import pytest
import torch
from replay import record_all, replay, settings
from tiny_methods import make
from two_processes import run_in_two

from dfkd_cli.errors import UsageError
from dfkd_cli.machine.world.world import World
from dfkd_cli.methods import METHODS


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return run_in_two(record_all, tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("name", [*METHODS, "narrowed"])
def test_gradients_and_losses_are_those_of_one_process(recorded, name):
    both = [one[name] for one in recorded]
    alone = replay("ssd", both, 0.6) if name == "narrowed" else replay(name, both)
    for trained in alone.keys() - {"terms"}:
        assert alone[trained], trained
        size = max(float(value.abs().max()) for value in alone[trained].values())
        for one in both:
            assert one["outcome"][trained].keys() == alone[trained].keys()
            for key, value in alone[trained].items():
                torch.testing.assert_close(one["outcome"][trained][key], value, rtol=0.0, atol=1e-5 * max(1.0, size))
    for step, terms in enumerate(alone["terms"]):
        for key, value in terms.items():
            shared = both[0]["outcome"]["terms"][step][key]
            torch.testing.assert_close(
                shared,
                value.float(),
                rtol=1e-3,
                atol=1e-4,
                msg=lambda text, key=key, step=step: f"{key} of step {step}: {text}",
            )


def test_both_processes_have_images_of_their_own(recorded):
    for name in METHODS:
        one, other = (each[name]["batches"][0][0] for each in recorded)
        assert one.shape == other.shape == (4, 1, 8, 8)
        assert not torch.equal(one, other)


def test_both_compute_in_parts_when_one_runs_out_of_memory(recorded):
    one, other = (each["memory"] for each in recorded)
    assert one["parts"] == other["parts"] == 2
    trained = [name for name in one["weights"] if "running" not in name]
    assert trained
    assert all(torch.equal(one["weights"][name], other["weights"][name]) for name in trained)


@pytest.mark.parametrize("name", METHODS)
def test_one_process_continues_with_the_images_of_two(recorded, name):
    loop = make(name, *settings(name))
    loop.load_state_dict(recorded[0][name]["state"])
    assert loop.step == 4
    before, now = recorded[0][name]["state"], loop.state_dict()
    if hasattr(loop.method.source, "memory") and "count" in now["method"]["source"]["memory"]:
        shares = [one["method"]["source"]["memory"]["images"] for one in (before, *before["others"])]
        kept = now["method"]["source"]["memory"]["images"]
        assert sorted(kept.flatten(1).tolist()) == sorted(torch.cat(shares).flatten(1).tolist())
    if METHODS[name].needs.pool:
        files = [one["method"]["source"]["selected"]["files"] for one in (before, *before["others"])]
        assert sorted(loop.method.source.selected.files) == sorted(files[0] + files[1])
    assert loop.student_step(0.9)["loss"].isfinite()


def test_a_batch_that_cannot_be_shared_is_refused():
    world = World()
    world.size = 3
    assert world.share(9, "x") == 3
    for count in (8, 3):
        with pytest.raises(UsageError, match=f"x={count} cannot be shared by 3 processes.*such as [69]"):
            world.share(count, "x")
