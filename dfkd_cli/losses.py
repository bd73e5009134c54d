"""The losses of distillation and inversion: pure functions of tensors, per sample unless the name says otherwise."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def kl_div(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 * KL(teacher || student) of the softened predictions in nats: [B, K], [B, K] -> [B].

    The T^2 keeps the size of the gradient independent of the temperature (arXiv:1503.02531, sec. 2).
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def logit_distance(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean absolute difference of the logits: [B, K], [B, K] -> [B]. It depends on their scale, and on their shift."""
    return (student_logits.float() - teacher_logits.float()).abs().mean(dim=1)


def batch_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the batch's mean prediction: [B, K] -> scalar in [0, log K]; high when all classes appear.

    The information entropy term of DAFL (arXiv:1904.01186, eq. 6).
    """
    # In log space, where a class that never appears has a finite gradient; p * log(p) would have a NaN there.
    log_mean = torch.logsumexp(F.log_softmax(logits.float(), dim=1), dim=0) - math.log(len(logits))
    return -(log_mean.exp() * log_mean).sum()


def activation_size(embedding: Tensor) -> Tensor:
    """Mean absolute activation of the embedding: [B, D] -> [B]; real images excite a network more than noise does.

    The activation term of DAFL (arXiv:1904.01186, eq. 5), which maximises it.
    """
    return embedding.float().flatten(1).abs().mean(dim=1)


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels: [B, C, H, W] -> [B] in [0, 2]; low for smooth images."""
    rows = (images[:, :, 1:] - images[:, :, :-1]).abs().mean(dim=(1, 2, 3))
    columns = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean(dim=(1, 2, 3))
    return rows + columns


def agreement(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """1.0 where both networks predict the same class, else 0.0: [B, K], [B, K] -> [B]."""
    return (student_logits.argmax(dim=1) == teacher_logits.argmax(dim=1)).float()
