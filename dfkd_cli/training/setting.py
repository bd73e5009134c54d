"""What a method receives: two networks, their compiled forwards, the augmentation, a random stream and the runtime."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dfkd_cli.machine.runtime import Runtime
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.modes import evaluating
from dfkd_cli.training.augmentation import Augmentation
from dfkd_cli.training.taps import Taps

Terms = dict[str, Tensor]  # named losses (scalars) or logged values (scalars, vectors), on the device


class Features(NamedTuple):
    """What a network computes for a batch of B images."""

    logits: Tensor  # [B, K]
    embedding: Tensor | None  # input of the last linear layer: [B, D]
    stages: tuple[Tensor, ...]  # the last feature map of each resolution, large to small: [B, C, H, W]


Recorded = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # feature maps [B, ...] of the student, of the teacher


class Setting:
    """Teacher and student with their compiled forwards, the augmentation, the random stream and the runtime.

    `batch_size` is that of one process. `rng` is a generator on the runtime's device. `pool` is the `PoolFolder` of a
    method that selects its images; nothing else reads it. `taps` or, with `compare_stages`, the stages of equal shape
    decide which feature maps of both networks `take_recorded` returns.
    """

    def __init__(
        self,
        teacher: Classifier,
        student: Classifier,
        *,
        batch_size: int,
        augmentation: Augmentation,
        runtime: Runtime,
        rng: torch.Generator,
        pool: object | None = None,
        taps: Taps | None = None,
        compare_stages: bool = False,
        sync_batchnorm: bool = True,
    ):
        self.teacher, self.student = teacher, student
        self.batch_size, self.augmentation = batch_size, augmentation
        self.runtime, self.rng = runtime, rng
        self.pool, self.sync_batchnorm = pool, sync_batchnorm
        self.taps = taps
        self._recorded: Recorded | None = None
        self.expect(batch_size)
        of_teacher = runtime.compile if teacher.network.compilable else lambda function: function
        self.teacher_forward, self.student_forward = of_teacher(teacher), runtime.compile(student)
        self.teacher_features = of_teacher(_features_of(teacher))
        self.student_features = runtime.compile(_features_of(student))
        self.compared = self._stages_of_equal_shape() if compare_stages and taps is None else ()
        if taps is not None:
            self._watched_predict = of_teacher(taps.watched(teacher)), runtime.compile(taps.watched(student))
            functions = _features_of(teacher), _features_of(student)
            self._watched_observe = of_teacher(taps.watched(functions[0])), runtime.compile(taps.watched(functions[1]))

    def expect(self, batch_size: int) -> None:
        """Prepare the teacher for batches of this size; other sizes work too, but can be slower."""
        if self.runtime.compiles and (reason := self.teacher.network.make_compilable(batch_size)) is not None:
            note = f"the teacher is not compiled, which costs speed only: {reason}"
            if note not in self.runtime.notes:
                self.runtime.notes.append(note)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the teacher, without gradients, and of the student: [B, C, H, W] -> [B, K], [B, K]."""
        if self.taps is not None:
            return self._record(self.taps, self._watched_predict, images)
        if self.compared:
            teacher, student = self.observe(images)
            return teacher.logits, student.logits
        with self.runtime.autocast():
            with torch.no_grad():
                teacher_logits = self.teacher_forward(images)
            return teacher_logits, self.student_forward(images)

    def observe(self, images: Tensor) -> tuple[Features, Features]:
        """Return features of the teacher, without gradients, and of the student, for images [B, C, H, W]."""
        if self.taps is not None:
            return self._record(self.taps, self._watched_observe, images)
        with self.runtime.autocast():
            with torch.no_grad():
                teacher = self.teacher_features(images)
            student = self.student_features(images)
        own, target = zip(*self.compared, strict=True) if self.compared else ((), ())
        self._recorded = tuple(student.stages[place] for place in own), tuple(teacher.stages[place] for place in target)
        return teacher, student

    def take_recorded(self) -> Recorded:
        """Return the feature maps of student and teacher in the latest `predict` or `observe`, once.

        They hold the memory of a whole forward, so nothing keeps them until the next one. Raises RuntimeError when both
        networks have not been computed since the latest call.
        """
        if self.taps is None and not self.compared:
            return (), ()
        if self._recorded is None:
            raise RuntimeError("no forward of teacher and student since the feature maps were taken")
        recorded, self._recorded = self._recorded, None
        return recorded

    def _stages_of_equal_shape(self) -> tuple[tuple[int, int], ...]:
        """Return the places of student's and teacher's stages that have the same channels, height and width."""
        teacher, student = self.probe()
        places = {stage.shape: place for place, stage in enumerate(teacher.stages)}
        return tuple(
            (place, places[stage.shape]) for place, stage in enumerate(student.stages) if stage.shape in places
        )

    def _record(self, taps: Taps, functions: tuple[Callable, Callable], images: Tensor) -> tuple[Any, Any]:
        """Return the results of teacher and student, and keep what the taps recorded."""
        try:
            with self.runtime.autocast():
                with torch.no_grad():
                    teacher, of_teacher = functions[0](images)
                student, of_student = functions[1](images)
        except Exception:  # out of memory, after which a smaller batch is tried
            taps.forget()
            raise
        self._recorded = of_student, of_teacher
        return teacher, student

    def probe(self) -> tuple[Features, Features]:
        """Return the features of teacher and student for two black images; both networks stay as they are."""
        black = torch.zeros(2, *self.teacher.spec.size, device=self.runtime.device)
        with evaluating(self.teacher, self.student):
            return _features_of(self.teacher)(black), _features_of(self.student)(black)

    def augment(self, images: Tensor) -> Tensor:
        """Return one random view of each image in the memory format of the networks."""
        return self.runtime.images(self.augmentation(images, self.rng))


def _features_of(classifier: Classifier) -> Callable[[Tensor], Features]:
    def features(images: Tensor) -> Features:
        seen = classifier.observe(images)
        return Features(seen.logits, seen.embedding, seen.stages)

    return features
