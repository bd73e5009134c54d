"""Conventions for the inputs of networks, recognised from estimated statistics."""

import pytest
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from dfkd_cli.loading.input_conventions import assumed_normalisation, contradicts, describe
from dfkd_cli.loading.input_statistics import InputStatistics

CONVENTIONS = {  # mean and std of the images, and the normalisation to assume for three channels
    "normalised": (0.0, 1.0, (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)),
    "unit range": (0.45, 0.25, ((0.0,) * 3, (1.0,) * 3)),
    "bytes": (115.0, 64.0, ((0.0,) * 3, (1 / 255,) * 3)),
    "centred": (-0.1, 0.5, ((0.5,) * 3, (0.5,) * 3)),
    "unknown": (0.0, 0.004, None),
}


def statistics_of(mean: float, std: float, channels: int = 3) -> InputStatistics:
    return InputStatistics((mean,) * channels, std, 0.0, 0.0, trusted=True)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_assumed_normalisation_of_three_channels(convention):
    mean, std, expected = CONVENTIONS[convention]
    assert assumed_normalisation(statistics_of(mean, std), 3) == expected


def test_assumed_normalisation_of_one_channel_gives_the_estimated_statistics():
    assumed = assumed_normalisation(statistics_of(0.2, 1.25, channels=1), 1)
    assert assumed is not None
    (mean,), (std,) = assumed
    assert ((0.45 - mean) / std, 0.25 / std) == pytest.approx((0.2, 1.25))


@pytest.mark.parametrize(
    ("mean", "std", "convention"),
    [(0.13, 0.31, "unit range"), (33.0, 79.0, "bytes"), (-0.74, 0.62, "centred"), (0.0, 1.0, "normalised")],
)
def test_images_of_one_channel_can_be_dark(mean, std, convention):
    """These are the statistics of MNIST."""
    assert describe(statistics_of(mean, std, channels=1)) == convention


def test_dark_colour_images_fit_no_convention():
    assert describe(statistics_of(0.13, 0.31)) == "unknown"


FLAGS = {
    "normalised": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "unit range": ((0.0,), (1.0,)),
    "bytes": ((0.0,), (1 / 255,)),
    "centred": ((0.5,), (0.5,)),
}


@pytest.mark.parametrize("convention", FLAGS)
def test_flags_of_the_same_convention_do_not_contradict(convention):
    mean, std, _ = CONVENTIONS[convention]
    for factor in (0.7, 1.4):
        for shift in (-0.4, 0.4):
            assert contradicts(statistics_of(mean + shift * std, factor * std), *FLAGS[convention]) is None


@pytest.mark.parametrize(
    ("convention", "flags"),
    [
        ("normalised", "unit range"),
        ("unit range", "normalised"),
        ("bytes", "unit range"),
        ("bytes", "normalised"),
        ("unit range", "bytes"),
        ("centred", "unit range"),
        ("unknown", "normalised"),
    ],
)
def test_flags_of_another_convention_contradict(convention, flags):
    mean, std, _ = CONVENTIONS[convention]
    sentence = contradicts(statistics_of(mean, std), *FLAGS[flags])
    assert sentence is not None
    assert f"about mean {mean:.3g} and std {std:.3g}" in sentence


def test_the_sentence_shows_both():
    assert contradicts(statistics_of(0.0, 1.0), (0.0,), (1.0,)) == (
        "mean 0 and std 1 give the network inputs of mean 0.45 and std 0.25, but its first BatchNorm layer was trained "
        "on inputs of about mean 0 and std 1"
    )


def test_mnist_flags_do_not_contradict_a_network_for_mnist():
    assert contradicts(statistics_of(0.0, 1.0, channels=1), (0.1307,), (0.3081,)) is None
    assert contradicts(statistics_of(0.13, 0.31, channels=1), (0.0,), (1.0,)) is None
