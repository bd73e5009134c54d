"""The losses of distillation and inversion: pure functions of tensors.

Logits are [B, K], or [B, K, H, W] with one answer per pixel. Then a loss per image is the mean over its pixels, so that
weights, priorities and reports of images have the same shapes and sizes for both.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.networks.pixels import as_rows, per_image


def kl_div(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, cap: float | None = None
) -> Tensor:
    """Return T^2 * KL(teacher || student) of the softened predictions in nats: [B, K], [B, K] -> [B].

    The factor T^2 makes the size of the gradient independent of the temperature (arXiv:1503.02531, sec. 2).
    """
    return per_image(answer_kl(student_logits, teacher_logits, temperature, cap))


def answer_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, cap: float | None = None
) -> Tensor:
    """Return `kl_div` of each answer, at most `cap`: [B, K], [B, K] -> [B], or [B, K, H, W] x 2 -> [B, H, W]."""
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    kl = temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    return kl if cap is None else kl.clamp(max=cap)


def logit_distance(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the mean absolute difference of the logits: [B, K], [B, K] -> [B]. It depends on their scale and shift."""
    return per_image((student_logits.float() - teacher_logits.float()).abs().mean(dim=1))


def label_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, mask: bool) -> Tensor:
    """Return the cross-entropy of the student against labels in nats: [B, K], [B, K], [B] -> [B].

    With `mask` it is 0 where the teacher predicts another class, as it can for the requested label of an image.
    """
    loss = F.cross_entropy(student_logits.float(), labels, reduction="none")
    return hits(teacher_logits, labels) * loss if mask else loss


def batch_entropy(logits: Tensor, world: World = ALONE) -> Tensor:
    """Return the entropy of the batch's mean prediction in nats: [B, K] -> scalar in [0, log K].

    It is high when all classes appear. The information entropy term of DAFL (arXiv:1904.01186, eq. 6). The mean is over
    all pixels of logits [B, K, H, W], and over the batches of all processes of `world`.
    """
    # In log space, because p * log(p) has a NaN gradient for a class with probability 0.
    rows = as_rows(logits)
    log_mean = torch.logsumexp(F.log_softmax(rows.float(), dim=1), dim=0) - math.log(len(rows))
    if world.several:
        log_mean = torch.logsumexp(world.gather(log_mean), dim=0) - math.log(world.size)
    return -(log_mean.exp() * log_mean).sum()


def activation_size(embedding: Tensor) -> Tensor:
    """Return the mean absolute activation of the embedding: [B, D] -> [B]; it is larger for real images than for noise.

    DAFL maximises it (arXiv:1904.01186, eq. 5).
    """
    return embedding.float().flatten(1).abs().mean(dim=1)


def total_variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels: [B, C, H, W] -> [B] in [0, 2]; low for smooth images.

    A dimension of size 1 adds nothing.
    """
    along = [images.diff(dim=dim).abs().mean(dim=(1, 2, 3)) for dim in (2, 3) if images.shape[dim] > 1]
    return torch.stack(along).sum(dim=0) if along else images.new_zeros(len(images))


def agreement(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return 1.0 where both networks predict the same class, else 0.0: [B, K], [B, K] -> [B].

    Of logits [B, K, H, W] it is the share of such pixels.
    """
    return per_image(answers_agree(student_logits, teacher_logits))


def answers_agree(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return 1.0 for each answer that is the same of both networks, else 0.0: -> [B] or [B, H, W]."""
    return (student_logits.argmax(dim=1) == teacher_logits.argmax(dim=1)).float()


def class_dropped_kl(student_logits: Tensor, teacher_logits: Tensor, kept: int, temperature: float = 1.0) -> Tensor:
    """Return T^2 * KL(teacher || student) with the teacher's `kept` likeliest classes only: [B, K], [B, K] -> [B] >= 0.

    The teacher's probabilities of these classes are renormalised, those of the others are 0; the student's softmax runs
    over all classes. With `kept` >= K this is `kl_div`. A reconstruction: arXiv:2302.08771 names class dropping.
    """
    top = teacher_logits.float().topk(min(kept, teacher_logits.shape[1]), dim=1)
    teacher = F.log_softmax(top.values / temperature, dim=1)
    student = F.log_softmax(student_logits.float() / temperature, dim=1).gather(1, top.indices)
    return per_image(temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1))


def dropped_mass(teacher_logits: Tensor, kept: int) -> Tensor:
    """Return the teacher's probability of all but its `kept` likeliest classes: [B, K] -> [B] in [0, 1]."""
    probabilities = teacher_logits.float().softmax(dim=1)
    kept_mass = probabilities.topk(min(kept, probabilities.shape[1]), dim=1).values.sum(dim=1)
    return per_image((1.0 - kept_mass).clamp_min(0.0))


def cosine_distance(one: Tensor, other: Tensor) -> Tensor:
    """Return the squared distance of the directions, 2 - 2 cos: [B, D], [B, D] -> [B] in [0, 4]."""
    return 2.0 - 2.0 * F.cosine_similarity(one.float(), other.float(), dim=1)


def relations(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return the differences of distances and of angles within a batch: [B, D], [B, E] -> two scalars.

    Distances of pairs are divided by their mean; angles are those at each point between every two others. Both
    differences are smooth L1 losses (RKD, arXiv:1904.05068, eqs. 3 to 9). Zero for a rotated and scaled copy.
    """
    student_distances, student_angles = _structure(student.float())
    teacher_distances, teacher_angles = _structure(teacher.float())
    distance = F.smooth_l1_loss(student_distances, teacher_distances)
    return distance, F.smooth_l1_loss(student_angles, teacher_angles)


def _structure(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Return relative distances [B, B] and cosines [B, B, B]; [j, i, k] is that of the angle at j between i and k."""
    offsets = embedding.unsqueeze(0) - embedding.unsqueeze(1)
    squares = offsets.square().sum(dim=2)
    # Two equal embeddings have no direction; the bound and the mask make their gradients finite.
    distances = squares.clamp_min(1e-12).sqrt()
    directions = offsets * ((squares > 1e-12) / distances).unsqueeze(2)
    count = len(embedding)
    return distances * (count * (count - 1) / distances.sum()), directions @ directions.transpose(1, 2)


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1.0 where the predicted class is the label, else 0.0: [B, K], [B] -> [B]."""
    return (logits.argmax(dim=1) == labels).float()
