"""What `dfkd evaluate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dfkd_cli.data.contents import Contents
    from dfkd_cli.evaluation.evaluation import Evaluation

Rows = list[tuple[str, str | None]]


def print_evaluation(found: Evaluation) -> None:
    """Print the figures that were measured."""
    dense = found.scores is not None
    rows = [
        ("images", f"{found.images:,}"),
        *(_reading_rows(found.data) if found.data is not None else []),
        *(_segmentation_rows(found) if dense else _accuracy_rows(found)),
        ("agreement with the teacher", _percent(found.agreement)),
        ("mean KL divergence", None if found.kl is None else f"{found.kl:.4f} nats"),
        ("preprocessing", str(found.preprocessing)),
        ("parameters", f"{found.parameters:,}"),
        ("multiply-accumulates", None if found.macs is None else f"{found.macs / 1e6:,.2f} M"),
        ("latency of one image", None if found.latency_ms is None else f"{found.latency_ms:.2f} ms"),
        ("file size", None if found.file_bytes is None else f"{found.file_bytes / 1e6:,.2f} MB"),
    ]
    _print_rows(rows)
    if dense:
        _print_classes(found)
    elif found.accuracy is None:
        print(f"The agreement was measured on {found.agreement_on}.")
        if found.report_matches:
            print("The student is that of the report beside it.")
        remark = found.remark or ""
        print(f"{remark[:1].upper()}{remark[1:]}. Agreement is not accuracy.")


def _reading_rows(data: Contents) -> Rows:
    counts = {
        "files passed over": sum(data.passed_over.values()),
        "unreadable image files": len(data.unreadable),
        "classes without images": len(data.classes_without_images),
    }
    return [(name, f"{count:,}") for name, count in counts.items() if count]


def _accuracy_rows(found: Evaluation) -> Rows:
    return [
        ("accuracy", _percent(found.accuracy)),
        ("accuracy, top 5", _percent(found.accuracy_top5)),
        ("teacher's accuracy", _percent(found.teacher_accuracy)),
        ("relative accuracy", _percent(found.relative_accuracy)),
    ]


def _segmentation_rows(found: Evaluation) -> Rows:
    rows: Rows = [("pixels that count", None if found.pixels is None else f"{found.pixels:,}")]
    for whose, scores in (("", found.scores), ("teacher's ", found.teacher_scores)):
        if scores is not None:
            rows += [
                (f"{whose}mean IoU", _percent(scores.miou)),
                (f"{whose}pixel accuracy", _percent(scores.pixel_accuracy)),
                (f"{whose}mean class accuracy", _percent(scores.class_accuracy)),
            ]
    return [*rows, ("relative mean IoU", _percent(found.relative_miou))]


def _print_classes(found: Evaluation) -> None:
    """Print the IoU of each class, and the teacher's beside it."""
    has_teacher = found.teacher_scores is not None
    whose = ", and the teacher's" if has_teacher else ""
    print(f"IoU of each class{whose}, with the pixels of its masks:")
    classes = found.classes or ()
    width = max(len(each.name) for each in classes)
    for each in classes:
        ious = [each.iou, *([each.teacher_iou] if has_teacher else [])]
        shown = "".join(f"  {_percent(iou) or '-':>8}" for iou in ious)
        print(f" {each.name:{width}}{shown}  {each.pixels:>12,}")


def _print_rows(rows: Rows) -> None:
    shown = [(name, text) for name, text in rows if text is not None]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for name, text in shown:
        print(f" {name:{widths[0]}}  {text:>{widths[1]}}")


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f} %"
