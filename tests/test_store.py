"""The image store returns its images, overwrites the oldest ones, and can be saved."""

import pytest
import torch

from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.synthesis.generator_loss import Generated
from dfkd_cli.synthesis.store import ImageStore, StoreConfig


def images(*values: int) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 3) / 255.0


def generated(*values: int) -> Generated:
    return Generated(images(*values), torch.tensor(values) % 10, torch.zeros(len(values), 10), None, {})


def filled(capacity: int, *batches: tuple[int, ...]) -> ImageStore:
    """Return images whose pixels are their number, and whose class is its last digit."""
    store = ImageStore(capacity, InputSpec((1, 2, 3), (0.5,), (0.25,), 10), torch.device("cpu"))
    for batch in batches:
        store.add(generated(*batch))
    return store


def numbers(store: ImageStore) -> list[int]:
    return store.images[: len(store), 0, 0, 0].tolist()


def test_the_oldest_images_are_overwritten():
    store = filled(5, (1, 2, 3), (4, 5, 6))
    assert numbers(store) == [6, 2, 3, 4, 5]
    assert store.classes.tolist() == [6, 2, 3, 4, 5]
    assert (len(store), store.added) == (5, 6)


def test_the_end_of_a_batch_larger_than_the_store_is_kept():
    assert sorted(numbers(filled(2, (1, 2, 3)))) == [2, 3]


def test_images_are_returned_unchanged():
    store = filled(5, (10, 255, 0))
    torch.testing.assert_close(store.read(torch.tensor([1, 0])), images(255, 10))
    torch.testing.assert_close(store.spread(2), images(10, 0))
    assert len(store.spread(100)) == 3


def test_only_filled_places_are_drawn_and_each_equally_often():
    store = filled(100, (1, 2, 3, 4))
    index = store.sample(4000, torch.Generator().manual_seed(0)).index
    assert index is not None
    drawn = index.bincount()
    assert len(drawn) == 4
    assert (drawn - 1000).abs().max() < 120


def test_class_shares_count_what_is_stored():
    assert filled(8, (1, 11, 2, 5)).class_shares().tolist() == [0, 0.5, 0.25, 0, 0, 0.25, 0, 0, 0, 0]


@pytest.mark.parametrize("batches", [((1, 2, 3), (4, 5, 6)), ((1, 2, 3),), ()])
@pytest.mark.parametrize("before", [(), ((7, 8, 9, 7, 8),)])
def test_a_restored_store_is_the_same(batches, before):
    store, other = filled(5, *batches), filled(5, *before)
    other.load_state_dict(store.state_dict())
    assert numbers(other) == numbers(store)
    assert torch.equal(other.classes[: len(other)], store.classes[: len(store)])
    for each in (store, other):
        each.add(generated(10, 11, 12))
    assert (numbers(other), other.added, len(other)) == (numbers(store), store.added, len(store))


def test_empty_slots_are_not_saved(tmp_path):
    torch.save(filled(100_000, (1, 2, 3)).state_dict(), tmp_path / "state.pt")
    assert (tmp_path / "state.pt").stat().st_size < 10_000


def test_large_images_are_limited_by_memory_and_the_store_says_so():
    large, small = (InputSpec((3, side, side), (0.5,), (0.25,), 10) for side in (224, 32))
    config = StoreConfig(5000, mb=100)
    assert config.capacity(small) == 5000
    assert config.notes(small) == []
    assert config.capacity(large) == 100 * 2**20 // (3 * 224 * 224)
    (note,) = config.notes(large)
    assert note.startswith("696 images of 3x224x224 of 5,000, as many as fit into 100 MiB")
    assert note.endswith("105 MB.")
    (whole,) = StoreConfig(5000, mb=1024).notes(large)
    assert whole == "5,000 images of 3x224x224 are kept in 753 MB."
