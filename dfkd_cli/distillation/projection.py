"""A linear map from a student's embedding to a teacher's, so that the two can be compared."""

import torch
from torch import nn

from dfkd_cli.networks.classifier import Classifier


def embedding_size(classifier: Classifier) -> int | None:
    """The length of what the last linear layer receives; None when there is no such layer to be seen."""
    training = classifier.training
    classifier.eval()  # so that BatchNorm does not learn from the look
    with torch.no_grad():
        seen = classifier.observe(torch.zeros(2, *classifier.spec.size, device=classifier.mean.device))
    classifier.train(training)
    return None if seen.embedding is None else seen.embedding.shape[1]


def make_projection(student: Classifier, teacher: Classifier) -> nn.Linear | None:
    """A linear map without bias, [B, D student] -> [B, D teacher]; None when either embedding cannot be seen.

    Trained in the same step as the student and thrown away with the run. Random weights by torch's global stream.
    """
    student_size, teacher_size = embedding_size(student), embedding_size(teacher)
    if student_size is None or teacher_size is None:
        return None
    return nn.Linear(student_size, teacher_size, bias=False).to(teacher.mean.device)
