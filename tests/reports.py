"""Reports for the tests of what a run writes."""

import dataclasses

from dfkd_cli.report.images import ImagesReport
from dfkd_cli.report.report import (
    ON_EVALUATION_DATA,
    MemoryReport,
    RecipeReport,
    Report,
    StudentReport,
    TeacherReport,
    TimeReport,
)

MEASURED = Report(
    relative_accuracy=0.9,
    agreement=0.8765,
    agreement_on=ON_EVALUATION_DATA,
    teacher=TeacherReport("teacher.pt", "TorchScript", None, 0.9, 1000, 3, "a" * 64, 5_000_000),
    student=StudentReport("cifar_resnet8", False, 0.81, 250, "b" * 64, 1_250_000),
    images=ImagesReport(generated=20_000, kept=5_000),
    time=TimeReport(total_s=100.0, synthesis_s=30.0, distillation_s=60.0),
    memory=MemoryReport(peak_bytes=2_000_000_000),
    recipe=RecipeReport("ssd", "ssd", "c" * 64),
    steps=1234,
    seed=7,
    device="cpu",
    precision="fp32",
    optimizer="muon",
    command="dfkd compress teacher.pt --recipe ssd --student cifar_resnet8 --out out",
    notes=("The teacher's weights came from --arch.",),
)
UNMEASURED = dataclasses.replace(
    MEASURED,
    relative_accuracy=None,
    agreement_on=MEASURED.images.wording.measured_on,
    teacher=dataclasses.replace(MEASURED.teacher, accuracy=None, batchnorm_layers=0, file_bytes=None, sha256=None),
    student=dataclasses.replace(MEASURED.student, accuracy=None),
)
POOLED = dataclasses.replace(
    MEASURED,
    images=ImagesReport(generated=10_000, kept=4_000, pool="/data/web"),
    recipe=RecipeReport("unlabeled", "unlabeled", "c" * 64),
    command="dfkd compress teacher.pt --recipe unlabeled --pool /data/web --student cifar_resnet8 --out out",
)
