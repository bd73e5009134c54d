"""The replay buffer: values computed by hand, properties of priority sampling, eviction, and saving."""

import pytest
import torch

from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.synthesis.buffer import BufferConfig, Eviction, ReplayBuffer

CPU = torch.device("cpu")


def empty(
    capacity: int = 8,
    eviction: Eviction = "oldest",
    alpha: float = 0.6,
    beta: float = 0.4,
    smoothing: float = 0.0,
    size=(1, 2, 2),
) -> ReplayBuffer:
    spec = InputSpec(size, (0.5,), (0.25,), num_classes=4)
    config = BufferConfig(capacity, 1024, eviction)
    return ReplayBuffer(config, spec, CPU, alpha=alpha, beta=beta, smoothing=smoothing)


def filled(classes, confidence, discrepancy, **options) -> ReplayBuffer:
    buffer = empty(len(classes), **options)
    images = torch.arange(len(classes)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2) / 255.0
    buffer.put(images, torch.tensor(classes), torch.tensor(confidence))
    buffer.discrepancy[:] = torch.tensor(discrepancy)
    return buffer


CLASSES = [0, 0, 0, 0, 1, 1, 2, 3]
CONFIDENCE = [0.99, 0.9, 0.6, 0.5, 0.99, 0.6, 0.5, 0.9]
DISCREPANCY = [0.05, 0.2, 0.8, 1.0, 0.1, 0.6, 1.2, 0.3]


def test_modulation_has_the_values_computed_by_hand():
    buffer = filled(CLASSES, CONFIDENCE, DISCREPANCY)
    phi = buffer.modulation(buffer.classes, buffer.confidence, gamma=2.0, diversity=True, difficulty=True)
    expected = torch.tensor([5e-5, 0.005, 0.08, 0.125, 7.5e-5, 0.12, 0.21875, 0.00875])
    torch.testing.assert_close(phi, expected)


def test_modulation_is_one_without_its_factors_and_its_diversity_is_one_while_empty():
    buffer = empty()
    classes, confidence = torch.tensor([0, 1]), torch.tensor([0.2, 0.9])
    assert buffer.modulation(classes, confidence, 2.0, diversity=False, difficulty=False).tolist() == [1.0, 1.0]
    assert buffer.modulation(classes, confidence, 2.0, diversity=True, difficulty=False).tolist() == [1.0, 1.0]


def test_modulation_of_a_sure_prediction_has_a_finite_gradient():
    confidence = torch.ones(3, requires_grad=True)
    phi = empty().modulation(torch.zeros(3, dtype=torch.long), confidence, gamma=0.5, diversity=False, difficulty=True)
    phi.sum().backward()
    assert confidence.grad is not None
    assert confidence.grad.isfinite().all()
    assert phi.max() < 1e-3


def test_probabilities_and_weights_have_the_values_computed_by_hand():
    buffer = filled(CLASSES, CONFIDENCE, DISCREPANCY)
    expected = torch.tensor([0.0331, 0.0760, 0.1746, 0.1996, 0.0501, 0.1469, 0.2227, 0.0969])
    torch.testing.assert_close(buffer.probabilities(), expected, atol=1e-4, rtol=0)
    buffer.update(torch.arange(8), torch.tensor(DISCREPANCY))
    expected = torch.tensor([1.7019, 1.2202, 0.8749, 0.8292, 1.4411, 0.9374, 0.7937, 1.1071])
    torch.testing.assert_close(buffer.weights, expected, atol=1e-4, rtol=0)


def test_discrepancy_is_the_kl_times_the_weight_of_the_step_before():
    buffer = filled(CLASSES, CONFIDENCE, DISCREPANCY)
    index, kl = torch.tensor([2, 5]), torch.tensor([0.5, 0.25])
    buffer.weights[index] = torch.tensor([2.0, 4.0])
    buffer.update(index, kl)
    assert buffer.discrepancy[index].tolist() == [1.0, 1.0]


def test_discrepancy_is_averaged_over_the_views_of_an_image_from_its_second_draw_on():
    buffer = empty(smoothing=0.75, beta=0.0)
    buffer.put(torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long), torch.ones(4))
    index = torch.tensor([1])
    for kl in (1.0, 2.0, 0.0):
        buffer.update(index, torch.tensor([kl]))
    assert buffer.discrepancy[index].item() == pytest.approx(0.75 * (0.75 * 1.0 + 0.25 * 2.0))


def test_images_that_were_not_drawn_have_the_mean_priority_of_the_others():
    """Otherwise a student that begins as the teacher, with a discrepancy of 0, would draw the first images for ever."""
    buffer = empty(alpha=1.0)
    buffer.put(torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long), torch.ones(4))
    torch.testing.assert_close(buffer.probabilities(), torch.full((4,), 0.25))
    buffer.update(torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(buffer.probabilities(), torch.tensor([1.0, 3.0, 2.0, 2.0]) / 8.0)


def test_alpha_zero_draws_uniformly():
    torch.testing.assert_close(
        filled(CLASSES, CONFIDENCE, DISCREPANCY, alpha=0.0).probabilities(), torch.full((8,), 1 / 8)
    )


def test_beta_one_undoes_the_bias_of_the_drawing():
    """E_P[w f] is the mean of f over the buffer."""
    buffer, values = filled(CLASSES, CONFIDENCE, DISCREPANCY, beta=1.0), torch.randn(8)
    chances = buffer.probabilities()
    buffer.update(torch.arange(8), torch.tensor(DISCREPANCY))
    torch.testing.assert_close((chances * buffer.weights * values).sum(), values.mean())


def test_draws_follow_the_probabilities():
    buffer = filled(CLASSES, CONFIDENCE, DISCREPANCY)
    index = buffer.sample(50_000, torch.Generator().manual_seed(0)).index
    assert index is not None
    shares = torch.bincount(index, minlength=8) / len(index)
    torch.testing.assert_close(shares, buffer.probabilities(), atol=0.01, rtol=0)


def test_images_come_back_within_half_a_grey_level():
    buffer, images = empty(), torch.rand(8, 1, 2, 2)
    buffer.put(images, torch.zeros(8, dtype=torch.long), torch.ones(8))
    assert (buffer.read(torch.arange(8)) - images).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ("eviction", "replaced"),
    [("oldest", {0, 1}), ("easiest", {0, 4}), ("mastered", {0, 4})],
)
def test_eviction_replaces_the_entries_it_names(eviction, replaced):
    buffer = filled(CLASSES, CONFIDENCE, DISCREPANCY, eviction=eviction)
    buffer.put(torch.ones(2, 1, 2, 2), torch.tensor([3, 3]), torch.ones(2))
    assert {place for place in range(8) if buffer.images[place].max() == 255} == replaced


def test_the_ring_goes_on_where_it_ended():
    buffer = empty(capacity=5)
    for level in range(1, 5):
        images = torch.full((2, 1, 2, 2), level / 255.0)
        buffer.put(images, torch.zeros(2, dtype=torch.long), torch.ones(2))
    assert buffer.images[:, 0, 0, 0].tolist() == [3, 4, 4, 2, 3]
    assert (len(buffer), buffer.added) == (5, 8)


def test_a_batch_larger_than_the_buffer_leaves_its_last_images():
    buffer = empty(capacity=3)
    images = (torch.arange(5) / 255.0).view(5, 1, 1, 1).expand(-1, 1, 2, 2)
    buffer.put(images, torch.arange(5) % 4, torch.ones(5))
    assert sorted(buffer.images[:, 0, 0, 0].tolist()) == [2, 3, 4]


def test_a_restored_buffer_draws_the_same():
    buffer, copy = filled(CLASSES, CONFIDENCE, DISCREPANCY), empty()
    copy.load_state_dict(buffer.state_dict())
    draws = [each.sample(64, torch.Generator().manual_seed(1)) for each in (buffer, copy)]
    assert torch.equal(draws[0].images, draws[1].images)
    assert torch.equal(copy.images, buffer.images)


def test_five_thousand_small_images_take_fifteen_megabytes():
    buffer = empty(5000, size=(3, 32, 32))
    assert buffer.images.nbytes == buffer.reserved_bytes() == 15_360_000
