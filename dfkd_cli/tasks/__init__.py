"""What a network answers: one class per image, or one class per pixel."""

from dfkd_cli.tasks.pixels import as_rows, per_image
from dfkd_cli.tasks.task import CLASSIFICATION, SEGMENTATION, TASKS, Task, TaskName, task_of

__all__ = ["CLASSIFICATION", "SEGMENTATION", "TASKS", "Task", "TaskName", "as_rows", "per_image", "task_of"]
