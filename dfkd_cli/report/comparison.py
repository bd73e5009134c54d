"""Teacher and student compared: the rows of the table, and explanations of its terms, for every document of a run."""

from dfkd_cli.networks.tasks import TASKS, TaskName
from dfkd_cli.report.quantities import DASH, counted, megabytes, share
from dfkd_cli.report.report import Report

_MEANINGS: dict[TaskName, str] = {
    "classification": "the percentage of evaluation images that are classified correctly",
    "segmentation": "the mean over classes of intersection over union: the pixels that the class has in the masks and "
    "in the predictions, divided by those that it has in either",
}


def comparison(report: Report) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: quantity, teacher, student, student / teacher."""
    teacher, student, measure = report.teacher, report.student, report.measure()
    return [
        ("network", teacher.arch or teacher.kind, student.arch, ""),
        (measure.name, share(measure.teacher), share(measure.student), share(measure.relative)),
        *_pixel_rows(report),
        (
            "parameters",
            f"{teacher.parameters:,}",
            f"{student.parameters:,}",
            share(student.parameters / teacher.parameters) if teacher.parameters else DASH,
        ),
        (
            "file size",
            megabytes(teacher.file_bytes),
            megabytes(student.file_bytes),
            share(student.file_bytes / teacher.file_bytes) if teacher.file_bytes else DASH,
        ),
    ]


def _pixel_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Return the further figures of a segmentation network."""
    found = report.segmentation
    if found is None or found.teacher is None:
        return []
    pairs = {
        "pixel accuracy": (found.teacher.pixel_accuracy, found.student.pixel_accuracy),
        "mean class accuracy": (found.teacher.class_accuracy, found.student.class_accuracy),
    }
    return [
        (name, share(teacher), share(student), share(student / teacher) if teacher else DASH)
        for name, (teacher, student) in pairs.items()
    ]


def comparison_table(report: Report) -> str:
    """Return the table of `comparison` in Markdown."""
    lines = ["| | teacher | student | student / teacher |", "|---|--:|--:|--:|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in comparison(report)])


def explanations(report: Report) -> list[tuple[str, str]]:
    """Return the explanations of the numbers, each as a term, which can be empty, and the text that follows it."""
    found: list[tuple[str, str]] = []
    measure = report.measure()
    if measure.student is not None:
        text = (
            f" is {_MEANINGS[report.task]}. It is measured once, at the end of the run. The evaluation images were "
            "used for nothing else, neither for training nor to choose the weights."
        )
        found.append((f"{measure.name[:1].upper()}{measure.name[1:]}", text))
    if report.agreement is not None:
        text = (
            f" is the percentage of {TASKS[report.task].answered} for which student and teacher predict the same "
            f"class, correct or not. It is measured on {report.agreement_on}."
        )
        found.append((f"Agreement ({share(report.agreement)})", text))
    return (
        found if report.images.pool is not None else [*found, ("", _about_batchnorm(report.teacher.batchnorm_layers))]
    )


def _about_batchnorm(layers: int) -> str:
    if layers == 0:
        return "The teacher has no BatchNorm layers, so it holds no statistics of its training images."
    held = "whose running statistics describe the teacher's training images"
    return (
        f"The teacher has {counted(layers, 'BatchNorm layer')}, {held}. Recipes with a BatchNorm term make synthetic "
        "images that match these statistics."
    )
