"""Where the student answers differently from its teacher: a map of classes and the commonest cases."""

from collections.abc import Sequence

from dfkd_cli.evaluation.confusion import Confusion
from dfkd_cli.report.page.gallery import class_label
from dfkd_cli.report.page.markup import Markup, escape, paragraph, table
from dfkd_cli.report.quantities import share

ALL_CLASSES = 50  # up to so many classes the map shows each
WORST_CLASSES = 30  # of more classes it shows those that take part in most disagreements
_COMMONEST = 8
_WITH_NUMBERS = 12  # columns at most whose cells are wide enough for a number


def disagreement(confusion: Confusion, images: str, names: Sequence[str] | None) -> list[Markup]:
    """The map with its explanation, and the commonest differences; `images` says what they were measured on."""
    everything = confusion.num_classes <= ALL_CLASSES
    classes = list(range(confusion.num_classes)) if everything else confusion.most_confused(WORST_CLASSES)
    total = sum(confusion.counts().values())
    shown = (
        "" if everything else f" Shown are the {len(classes)} of {confusion.num_classes:,} classes that differ most."
    )
    numbers = ", in percent of the row" if len(classes) <= _WITH_NUMBERS else ", the stronger the more often"
    text = (
        f"Measured on {total:,} {images}. Each row is a class the teacher names; its cells say how often the student "
        f"names the same class (blue) or another one (orange){numbers}.{shown}"
    )
    return [paragraph(text), _map(confusion, classes, everything, names), _commonest(confusion, total, names)]


def _map(confusion: Confusion, classes: list[int], everything: bool, names: Sequence[str] | None) -> Markup:
    columns = [str(number) for number in classes] + ([] if everything else ["other"])
    numbers = len(columns) <= _WITH_NUMBERS
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    rows = []
    for number, counts in zip(classes, confusion.matrix(classes), strict=True):
        of_row = sum(counts)
        cells = "".join(
            _cell(count, of_row, class_label(number, names), column, column == str(number), numbers)
            for count, column in zip(counts, columns, strict=False)
        )
        rows.append(f'<tr><th scope="row">{escape(class_label(number, names))}</th>{cells}</tr>')
    kind = "map numbers" if numbers else "map dense"
    corner = '<th scope="col">teacher \\ student</th>'
    body = "\n".join(rows)
    return Markup(
        f'<div class="scroll"><table class="{kind}"><thead><tr>{corner}{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def _cell(count: int, of_row: int, teacher: str, student: str, same: bool, numbers: bool) -> str:
    part = count / of_row if of_row else 0.0
    said = f"teacher {teacher}, student {student}: {count:,} of {of_row:,}"
    text = f"{100 * part:.0f}" if numbers and count else ""
    if not count:
        return f'<td title="{escape(said)}">{text}</td>'
    # The square root lets rare differences be seen beside the common agreement.
    kind = "same" if same else "other"
    return f'<td class="{kind}" style="--v:{part**0.5:.2f}" title="{escape(said)}">{text}</td>'


def _commonest(confusion: Confusion, total: int, names: Sequence[str] | None) -> Markup:
    differences = confusion.differences()[:_COMMONEST]
    if not differences:
        return paragraph("Student and teacher agreed on every image.")
    rows = [
        (class_label(teacher, names), class_label(student, names), f"{images:,}", share(images / total))
        for teacher, student, images in differences
    ]
    head = ("teacher says", "student says", "images", "share")
    return Markup("<h3>Commonest differences</h3>" + table(rows, head, "pairs"))
