"""The ranking against a plain implementation of its rule, and the equality of stream and whole."""

import pytest
import torch

from dfkd_cli.pool import candidates
from dfkd_cli.pool.candidates import Candidates, rank


def pool(count: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with ties, and classes of uneven size."""
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randint(40, (count,), generator=rng) / 40
    return scores, (torch.rand(count, generator=rng).square() * classes).long()


def greedy(scores: list[float], classes: list[int], cap: int) -> list[int]:
    """Return indices in the order of the scores: those within the cap of their class, then the others."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    accepted, over, taken = [], [], {}
    for place in order:
        taken[classes[place]] = taken.get(classes[place], 0) + 1
        (accepted if taken[classes[place]] <= cap else over).append(place)
    return accepted + over


@pytest.mark.parametrize("cap", [1, 3, 7, 1000])
def test_rank_is_the_greedy_choice_with_a_class_cap(cap):
    scores, classes = pool(200, 5, seed=cap)
    assert rank(scores, classes, cap).tolist() == greedy(scores.tolist(), classes.tolist(), cap)


def test_without_a_cap_the_best_confidences_are_chosen_as_dfnd_does():
    logits = 3 * torch.randn(300, 10, generator=torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(logits, logits.argmax(1), reduction="none")
    chosen = rank(logits.softmax(1).amax(1), logits.argmax(1), cap=300)[:50]
    assert set(chosen.tolist()) == set(loss.topk(50, largest=False).indices.tolist())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("keep", "cap"), [(30, 2), (30, 9), (30, 30), (200, 20)])
def test_a_stream_keeps_what_the_whole_pool_would(keep, cap, seed):
    scores, classes = pool(400, 6, seed)
    scores = scores + torch.arange(400) * 1e-6  # equal scores may change places
    store = Candidates(keep + 25, keep, cap, (1, 1, 1), torch.device("cpu"))
    for places in torch.arange(400).split(17):
        images = (places % 256).to(torch.uint8).view(-1, 1, 1, 1)
        names = [str(place) for place in places.tolist()]
        store.add(images, scores[places], classes[places], names, [name.encode() for name in names])
    best = store.best()
    expected = rank(scores, classes, cap)[:keep]
    assert [int(store.files[slot]) for slot in best.tolist()] == expected.tolist()
    assert store.images[best].flatten().tolist() == (expected % 256).tolist()
    assert torch.equal(store.scores[best], scores[expected])
    assert torch.equal(store.classes[best], classes[expected])


def test_a_score_that_is_no_number_ranks_last():
    store = Candidates(6, 2, 2, (1, 1, 1), torch.device("cpu"))
    scores = torch.tensor([torch.nan, 0.1, 0.2])
    images = torch.zeros(3, 1, 1, 1, dtype=torch.uint8)
    store.add(images, scores, torch.zeros(3).long(), ["a", "b", "c"], [b"a", b"b", b"c"])
    assert store.best().tolist() == [2, 1]


def add(store: Candidates, values: dict[str, int]) -> list[str]:
    """Add images of one pixel by name; the value is also the score. Return the names of those that were unknown."""
    names, digests = list(values), [bytes([pixel]) for pixel in values.values()]
    places = store.unknown(names, digests)
    pixels = torch.tensor([digests[place][0] for place in places], dtype=torch.uint8)
    added = [names[place] for place in places]
    images = pixels.view(-1, 1, 1, 1)
    store.add(images, pixels.float(), torch.zeros(len(places)).long(), added, [digests[place] for place in places])
    return added


def test_a_copy_of_an_image_that_is_held_is_not_stored_and_the_first_of_its_names_is_kept():
    store = Candidates(10, 5, 5, (1, 1, 1), torch.device("cpu"))
    assert add(store, {"d": 1, "c": 2, "b": 1}) == ["c", "b"]
    assert add(store, {"a": 2, "e": 3, "z": 1}) == ["e"]
    assert [store.files[slot] for slot in store.best().tolist()] == ["e", "a", "b"]
    assert store.images[store.best()].flatten().tolist() == [3, 2, 1]


@pytest.mark.parametrize(("stored", "added"), [(1000, []), (1, ["g"])])
def test_a_rejected_image_is_not_scored_again_while_its_digest_is_stored(monkeypatch, stored, added):
    monkeypatch.setattr(candidates, "REJECTED", stored)
    store = Candidates(5, 2, 5, (1, 1, 1), torch.device("cpu"))
    add(store, {"a": 1, "b": 2, "c": 3})
    add(store, {"d": 4, "e": 5, "f": 6})
    add(store, {"x": 7})
    assert add(store, {"g": 1, "h": 7}) == added
    assert [store.files[slot] for slot in store.best().tolist()] == ["h", "f"]
