"""The scores of a pool's images against their definitions in float64."""

import torch
import torch.nn.functional as F

from dfkd_cli.networks import NormStatistics
from dfkd_cli.pool import scoring


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_confidence_is_the_largest_probability():
    logits = 3 * random(6, 4)
    probabilities = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
    torch.testing.assert_close(scoring.confidence(logits).double(), probabilities.amax(1), rtol=1e-5, atol=0)


def test_negative_entropy_is_its_definition_and_zero_for_certainty():
    logits = 3 * random(6, 4)
    p = F.softmax(logits.double(), 1)
    torch.testing.assert_close(scoring.negative_entropy(logits).double(), (p * p.log()).sum(1), rtol=1e-4, atol=1e-6)
    assert scoring.negative_entropy(1e4 * torch.eye(3)).tolist() == [0.0, 0.0, 0.0]


def test_norm_closeness_is_minus_the_squared_distance_of_each_images_statistics():
    maps, vectors = 2 + random(5, 3, 4, 4), random(5, 7, seed=1)
    running = [NormStatistics(random(3, seed=2), random(3, seed=3)), NormStatistics(random(7), random(7).abs())]
    expected = []
    for image, vector in zip(maps.double(), vectors.double(), strict=True):
        mean, var = image.mean((1, 2)), image.var((1, 2), correction=0)
        layers = [(mean - running[0].mean) ** 2 + (var - running[0].var) ** 2]
        layers.append((vector - running[1].mean) ** 2 + running[1].var.double() ** 2)
        expected.append(-sum(layer.mean() for layer in layers))
    scores = scoring.norm_closeness([maps, vectors], running)
    torch.testing.assert_close(scores.double(), torch.stack(expected), rtol=1e-5, atol=0)


def test_norm_closeness_of_an_image_does_not_depend_on_its_batch():
    maps, running = random(5, 3, 4, 4), [NormStatistics(torch.zeros(3), torch.ones(3))]
    alone = torch.cat([scoring.norm_closeness([image[None]], running) for image in maps])
    torch.testing.assert_close(scoring.norm_closeness([maps], running), alone)


def test_images_far_from_the_prototype_of_their_class_score_lowest():
    """Two clusters of directions, one per class, and in each an outlier in the direction of the other one."""
    bundles = torch.eye(6)[[0, 3]].repeat_interleave(20, 0) + 0.05 * random(40, 6)
    bundles[[7, 27]] = bundles[[27, 7]]
    classes = torch.arange(40) // 20
    scores = scoring.prototype_score(bundles, torch.full((40,), 0.9), classes, prototypes=1)
    assert set(scores.topk(2, largest=False).indices.tolist()) == {7, 27}


def test_a_prototype_score_ignores_the_length_of_embeddings_and_is_finite_for_small_classes():
    embeddings, confidence = random(12, 5), random(12).sigmoid()
    classes = torch.tensor([0, 1, 1] + [2] * 9)
    scores = scoring.prototype_score(embeddings, confidence, classes)
    assert scores.isfinite().all()
    torch.testing.assert_close(scoring.prototype_score(7 * embeddings, confidence, classes), scores)


def test_confidence_and_closeness_weigh_the_same_in_a_prototype_score():
    embeddings, classes = random(50, 5), torch.zeros(50).long()
    wide, narrow = random(50, seed=4), 1e-2 * random(50, seed=4)
    torch.testing.assert_close(
        scoring.prototype_score(embeddings, wide, classes),
        scoring.prototype_score(embeddings, narrow, classes),
        rtol=1e-3,
        atol=1e-4,
    )


def test_chance_is_uniform_and_depends_on_the_image_and_the_seed_only():
    digests = [bytes([number // 256, number % 256]) for number in range(4000)]
    drawn = scoring.by_chance(digests, seed=0)
    assert torch.histc(drawn, 10, 0, 1).sub(400).abs().max() < 80
    assert torch.equal(scoring.by_chance(digests[5:7], seed=0), drawn[5:7])
    assert not torch.equal(scoring.by_chance(digests, seed=1), drawn)
    assert len(scoring.by_chance(digests[:1], seed=2**64 - 1)) == 1
