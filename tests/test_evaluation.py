"""Accuracy and agreement of networks whose predictions are known."""

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dfkd_cli.data.datasets import LabelledImages, open_dataset
from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.evaluation.accuracy import measure_accuracy
from dfkd_cli.evaluation.agreement import measure_agreement, with_logits
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.networks import EagerNetwork
from dfkd_cli.networks.classifier import Classifier, InputSpec, Origin

CPU = torch.device("cpu")


class Answers(nn.Module):
    """A network that reads the class from the grey level of a `labelled` image, and predicts `answers[class]`."""

    logits: Tensor

    def __init__(self, answers: list[int], value: float = 1.0):
        super().__init__()
        self.register_buffer("logits", value * nn.functional.one_hot(torch.tensor(answers), 10).float())
        self.dropout = nn.Dropout(0.9)  # changes the logits in training mode

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.logits[(x.mean((1, 2, 3)) * 255 / 20).round().long()])


def classifier(answers: list[int], value=1.0, size=(1, 4, 4), num_classes=10) -> Classifier:
    spec = InputSpec(size, (0.0,) * size[0], (1.0,) * size[0], num_classes)
    return Classifier(EagerNetwork(Answers(answers, value)), spec, Origin("test", "test", None, None))


def body(network: Classifier) -> Any:
    return network.network.module


def labelled(labels: tuple[int, ...]) -> LabelledImages:
    """One image per label, all of whose pixels are 20 times the label."""
    names = tuple("abcdefghij")
    return LabelledImages(
        "test", names, labels, classifier(RIGHT).spec, lambda i: Image.new("L", (4, 4), 20 * labels[i])
    )


ALL = tuple(range(10))
RIGHT = list(range(10))
SWAPPED = [1, 0, *range(2, 10)]  # wrong for the classes 0 and 1
ZERO = [0] * 10


@pytest.mark.parametrize("batch_size", [1, 3, 10, 256])
@pytest.mark.parametrize(("answers", "expected"), [(RIGHT, 1.0), (SWAPPED, 0.8), (ZERO, 0.1)])
def test_accuracy_is_the_fraction_of_correct_predictions(answers, expected, batch_size):
    result = measure_accuracy(classifier(answers), labelled(ALL), CPU, batch_size=batch_size)
    assert result.accuracy == pytest.approx(expected)
    assert result.images == 10


def test_top5_counts_the_label_among_the_best_five():
    ranked = torch.arange(10, 0, -1).float().repeat(10, 1)  # for every image: classes 0 to 4 first
    network = classifier(RIGHT)
    body(network).logits = ranked
    assert measure_accuracy(network, labelled(ALL), CPU).accuracy_top5 == pytest.approx(0.5)


def test_top5_is_none_for_five_classes():
    network = classifier(RIGHT)
    network.spec = InputSpec((1, 4, 4), (0.0,), (1.0,), 5)
    assert measure_accuracy(network, labelled((0, 1)), CPU).accuracy_top5 is None


def test_comparison_with_the_teacher():
    result = measure_accuracy(classifier(ZERO), labelled(ALL), CPU, teacher=classifier(SWAPPED))
    assert result.teacher_accuracy == pytest.approx(0.8)
    assert result.relative_accuracy == pytest.approx(0.125)
    assert result.agreement == pytest.approx(0.1)


def test_without_a_teacher_nothing_is_compared():
    result = measure_accuracy(classifier(RIGHT), labelled(ALL), CPU)
    assert (result.teacher_accuracy, result.relative_accuracy, result.agreement) == (None, None, None)


def test_relative_accuracy_is_none_for_a_teacher_that_is_never_correct():
    wrong = [*range(1, 10), 0]
    assert measure_accuracy(classifier(RIGHT), labelled(ALL), CPU, teacher=classifier(wrong)).relative_accuracy is None


def test_a_teacher_of_another_input_size_receives_the_same_images():
    result = measure_accuracy(
        classifier(RIGHT), labelled(ALL), CPU, teacher=classifier(RIGHT, size=(3, 8, 6)), batch_size=3
    )
    assert result.agreement == result.teacher_accuracy == 1.0


def test_teacher_of_another_class_count_is_refused():
    teacher = classifier(RIGHT, num_classes=9)
    with pytest.raises(UsageError, match="10 classes, the teacher 9"):
        measure_accuracy(classifier(RIGHT), labelled(ALL), CPU, teacher=teacher)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_an_error(value):
    with pytest.raises(DfkdError, match="not finite"):
        measure_accuracy(classifier(RIGHT, value), labelled(ALL), CPU)


def test_modes_are_restored_layer_by_layer():
    network = classifier(RIGHT).train()
    body(network).dropout.eval()
    measure_accuracy(network, labelled(ALL), CPU)
    assert network.training
    assert not body(network).dropout.training


def test_agreement_needs_no_labels():
    batches = [torch.full((2, 1, 4, 4), 20 * label / 255) for label in ALL]
    measured = measure_agreement(
        classifier(SWAPPED), with_logits(classifier(RIGHT), zip(batches, batches, strict=True))
    )
    assert (measured.images, measured.agreement) == (2 * len(ALL), pytest.approx(0.8))


def test_agreement_weighs_images_not_batches():
    batches = [torch.zeros(9, 1, 4, 4), torch.full((1, 1, 4, 4), 100 / 255)]
    measured = measure_agreement(
        classifier(SWAPPED), with_logits(classifier(RIGHT), zip(batches, batches, strict=True))
    )
    assert measured.agreement == pytest.approx(0.1)


def test_agreement_without_images_is_refused():
    with pytest.raises(UsageError, match="at least one image"):
        measure_agreement(classifier(RIGHT), [])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_agreement_of_logits_that_are_not_finite_is_an_error(value):
    images = torch.zeros(2, 1, 4, 4)
    with pytest.raises(DfkdError, match="not finite"):
        measure_agreement(classifier(RIGHT, value), with_logits(classifier(RIGHT), [(images, images)]))


def test_published_teacher_reproduces_its_accuracy(teachers, mnist_root):
    """28x28 images for a network of 32x32: only Pillow's bilinear filter before scaling gives this figure."""
    options = LoadOptions(arch="lenet5", mean=(0.1307,), std=(0.3081,))
    network = load_classifier(str(teachers / "kegnet-mnist.pth.tar"), options)
    result = measure_accuracy(network, open_dataset(f"mnist:{mnist_root}", network.spec), CPU)
    assert result.accuracy == pytest.approx(0.9891, abs=0.001)
