"""The tasks: how outputs are checked, how an answer is read, and how results are worded."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

TaskName = Literal["classification", "segmentation"]


class Task(ABC):
    """What the logits of a network mean."""

    name: ClassVar[TaskName]
    network: ClassVar[str]  # a network of this task, with its article
    answers: ClassVar[str]  # its answers, in words
    answered: ClassVar[str]  # what an answer is about, in the plural
    shape: ClassVar[str]  # of the logits of {batch} images
    measure: ClassVar[str]  # the main figure on labelled images, in words
    hub_name: ClassVar[str]  # of the task on the Hugging Face hub

    @abstractmethod
    def accepts(self, logits: Tensor, batch: int) -> bool:
        """Return whether these can be the logits of `batch` images."""

    @abstractmethod
    def at_size(self, logits: Tensor, images: Tensor) -> Tensor:
        """Return the logits in the form that all other code receives, for images [B, C, H, W]."""

    @abstractmethod
    def class_shares(self, classes: Tensor, num_classes: int) -> Tensor:
        """Return the share of each class in the predictions for each image: -> [B, K], rows summing to 1."""

    def image_class(self, classes: Tensor, num_classes: int) -> Tensor:
        """Return the most frequent class of each image: predicted classes -> [B]."""
        return self.class_shares(classes, num_classes).argmax(dim=1)


class Classification(Task):
    """One answer per image: logits [B, K], predicted classes [B]."""

    name = "classification"
    network = "an image classifier"
    answers = "one answer per image"
    answered = "images"
    shape = "[{batch}, classes]"
    measure = "accuracy"
    hub_name = "image-classification"

    def accepts(self, logits: Tensor, batch: int) -> bool:
        """Return whether the logits are [batch, K]."""
        return logits.ndim == 2 and logits.shape[0] == batch and logits.shape[1] > 0

    def at_size(self, logits: Tensor, images: Tensor) -> Tensor:
        """Return the logits unchanged."""
        return logits

    def class_shares(self, classes: Tensor, num_classes: int) -> Tensor:
        """Return one-hot rows: [B] -> [B, K]."""
        return F.one_hot(classes, num_classes).float()

    def image_class(self, classes: Tensor, num_classes: int) -> Tensor:
        """Return the predicted classes unchanged: [B] -> [B]."""
        return classes


class Segmentation(Task):
    """One answer per pixel: logits [B, K, H, W] of the size of the images, predicted classes [B, H, W]."""

    name = "segmentation"
    network = "a segmentation network"
    answers = "one answer per pixel"
    answered = "pixels"
    shape = "[{batch}, classes, height, width]"
    measure = "mean IoU"
    hub_name = "image-segmentation"

    def accepts(self, logits: Tensor, batch: int) -> bool:
        """Return whether the logits are [batch, K, h, w] with more than one pixel."""
        known = logits.ndim == 4 and logits.shape[0] == batch and logits.shape[1] > 0
        return known and logits.shape[2:].numel() > 1

    def at_size(self, logits: Tensor, images: Tensor) -> Tensor:
        """Return the logits, resized bilinearly to the images unless they have their size: -> [B, K, H, W]."""
        return resized(logits, (images.shape[2], images.shape[3]))

    def class_shares(self, classes: Tensor, num_classes: int) -> Tensor:
        """Return the share of each class among an image's pixels: [B, H, W] -> [B, K]."""
        counts = torch.zeros(len(classes), num_classes, device=classes.device)
        flat = classes.flatten(1)
        return counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=counts.dtype)) / flat.shape[1]


def resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return logits [B, K, h, w] at this height and width, interpolated bilinearly (align_corners=False)."""
    if logits.shape[2:] == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


CLASSIFICATION, SEGMENTATION = Classification(), Segmentation()
TASKS: dict[TaskName, Task] = {task.name: task for task in (CLASSIFICATION, SEGMENTATION)}


def task_of(logits: Tensor, batch: int) -> Task | None:
    """Return the task that logits of `batch` images show by their shape; None for a shape of no task."""
    return next((task for task in TASKS.values() if task.accepts(logits, batch)), None)
