"""Teacher and student compared: the rows of the table, and explanations of its terms, for every document of a run."""

from dfkd_cli.report.quantities import DASH, counted, megabytes, share
from dfkd_cli.report.report import Report


def comparison(report: Report) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: quantity, teacher, student, student / teacher."""
    teacher, student = report.teacher, report.student
    return [
        ("network", teacher.arch or teacher.kind, student.arch, ""),
        ("accuracy", share(teacher.accuracy), share(student.accuracy), share(report.relative_accuracy)),
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


def comparison_table(report: Report) -> str:
    """Return the table of `comparison` in Markdown."""
    lines = ["| | teacher | student | student / teacher |", "|---|--:|--:|--:|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in comparison(report)])


def explanations(report: Report) -> list[tuple[str, str]]:
    """Return the explanations of the numbers, each as a term, which can be empty, and the text that follows it."""
    found: list[tuple[str, str]] = []
    if report.student.accuracy is not None:
        text = (
            " is the percentage of evaluation images that are classified correctly. It is measured once, at the end of "
            "the run. The evaluation images were used for nothing else, neither for training nor to choose the weights."
        )
        found.append(("Accuracy", text))
    if report.agreement is not None:
        text = (
            " is the percentage of images for which student and teacher predict the same class, correct or not. "
            f"It is measured on {report.agreement_on}."
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
