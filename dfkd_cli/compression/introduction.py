"""The first notes of a run: what was loaded and where it computes."""

from dfkd_cli.compression.job import LoadedJob
from dfkd_cli.loading.findings import stated_by
from dfkd_cli.report.quantities import counted


def introduction(loaded: LoadedJob) -> list[str]:
    """Return one note each about the teacher, the student and the device."""
    teacher, spec = loaded.teacher, loaded.teacher.spec
    found = ", ".join(f"{name} {stated_by(where)}" for name, where in teacher.origin.found.items())
    dtype = str(loaded.runtime.dtype).removeprefix("torch.")
    return [
        f"teacher: {teacher.origin.kind}, {teacher.parameter_count():,} parameters, "
        f"{counted(len(teacher.norm_statistics), 'BatchNorm layer')}, {spec.num_classes} classes, "
        f"images {'x'.join(map(str, spec.size))} ({found})",
        _about_student(loaded),
        f"computing on {loaded.runtime.device} in {dtype}"
        + (", compiled: the first steps take a minute" if loaded.runtime.compiles else ""),
    ]


def _about_student(loaded: LoadedJob) -> str:
    parameters = loaded.final_student().parameter_count()
    if loaded.plan is None:
        return f"student: {loaded.student.origin.arch}, {parameters:,} parameters"
    removed, whole = len(loaded.plan.removal), loaded.teacher.parameter_count()
    return (
        f"student: the teacher without {counted(removed, 'channel')}, {parameters:,} parameters "
        f"({parameters / whole:.1%} of the teacher's)"
    )
