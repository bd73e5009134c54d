"""A linear map from the student's embedding to the teacher's."""

import torch
from torch import nn

from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.modes import evaluating


def embedding_size(classifier: Classifier) -> int | None:
    """Return the size of the last linear layer's input; None when no such layer is visible."""
    with evaluating(classifier):
        seen = classifier.observe(torch.zeros(2, *classifier.spec.size, device=classifier.mean.device))
    return None if seen.embedding is None else seen.embedding.shape[1]


def make_projection(student: Classifier, teacher: Classifier) -> nn.Linear | None:
    """Return a linear map without bias, [B, D student] -> [B, D teacher]; None when an embedding is not visible.

    It is trained in the same step as the student and discarded with the run. Its random weights come from torch's
    global stream.
    """
    student_size, teacher_size = embedding_size(student), embedding_size(teacher)
    if student_size is None or teacher_size is None:
        return None
    return nn.Linear(student_size, teacher_size, bias=False).to(teacher.mean.device)
