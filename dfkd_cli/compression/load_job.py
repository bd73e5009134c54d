"""Load and check everything that a job names, before anything is trained."""

from dataclasses import replace
from pathlib import Path

import torch

from dfkd_cli.compression.job import Job, LoadedJob
from dfkd_cli.data.datasets import LabelledImages, known_names, open_dataset
from dfkd_cli.data.segmented import SegmentedImages, open_segmented
from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.loading import load_classifier
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.machine.runtime import Runtime, choose_dtype
from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.methods import METHODS, check_needs, check_pool_for
from dfkd_cli.networks import QUANTIZED, input_gradient_reaches
from dfkd_cli.networks.classifier import Classifier, InputSpec
from dfkd_cli.networks.half_precision import strides_over_smaller_maps
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.students.from_teacher import parse_share, student_from_teacher
from dfkd_cli.students.inheritance import inherit_layers
from dfkd_cli.students.student import build_student
from dfkd_cli.training.config import TrainConfig

WORTH_COMPILING_S = 300.0  # of budget: on 2 cores compilation takes about a minute and almost halves a step
WORTH_COMPILING_STEPS = 1500  # the same for runs without a budget


def load_job(job: Job, world: World = ALONE) -> LoadedJob:
    """Return the loaded job; the cheapest checks come first. Seeds torch's global random generator.

    `world` is the processes that compute it.
    Raises UsageError, TeacherError and RecipeMismatchError for everything that prevents the run.
    """
    recipe = load_recipe(job.recipe, list(job.overrides))
    check_pool_for(recipe.method, job.pool)
    job.labels.check_for_compress(job.eval_data is not None)
    _check_apart(job.pool, job.eval_data)
    device = resolve_device(job.device)
    compiles = _worth_compiling(recipe.train)
    if compiles:
        world.stay_out_of_compiled_code()
    runtime = Runtime(device, choose_dtype(job.precision, device), compiles, world=world)
    teacher = load_classifier(job.teacher, job.load)
    check_needs(recipe.method, teacher)
    if teacher.spec.task == "segmentation":
        recipe = load_recipe(job.recipe, list(job.overrides), "segmentation")
    if not METHODS[recipe.method].needs.pool:
        check_gradient(job.teacher, teacher)
    data = None if job.eval_data is None else _open_data(job.eval_data, job, teacher.spec)
    if teacher.spec.task == "classification":
        job.masks.check_unused()
        # The student gets the class names, with which its classes are found in other evaluation data.
        names = known_names(teacher.spec, job.labels) or (() if data is None else data.class_names)
        teacher.spec = replace(teacher.spec, class_names=names)
    torch.manual_seed(job.seed)
    plan = None
    if (share := parse_share(job.student)) is not None:
        teacher, student, plan = student_from_teacher(teacher, share, recipe.narrowing)
    else:
        student = build_student(job.student, teacher.spec)
        if recipe.train.init == "teacher":
            _inherit(student, teacher)
    runtime = _exact_enough(runtime, student)
    teacher = runtime.place(teacher).eval().requires_grad_(False)
    return LoadedJob(recipe, teacher, runtime.place(student), data, runtime, job.pool, job.read_options, plan)


def _exact_enough(runtime: Runtime, student: Classifier) -> Runtime:
    """Return the runtime, in single precision where a CPU trains the student wrongly in bfloat16."""
    if runtime.dtype == torch.float32 or runtime.device.type != "cpu" or not strides_over_smaller_maps(student):
        return runtime
    note = "computed in float32, because a strided convolution of the student reads maps smaller than its filter"
    return replace(runtime, dtype=torch.float32, notes=[*runtime.notes, note])


def _open_data(where: str, job: Job, spec: InputSpec) -> LabelledImages | SegmentedImages:
    if spec.task == "segmentation":
        job.labels.check_unused()
        return open_segmented(where, spec, job.masks, job.read_options, "--eval")
    return open_dataset(where, spec, "--eval", job.read_options, job.labels)


def check_gradient(source: str, teacher: Classifier) -> None:
    """Raise TeacherError when no gradient reaches the teacher's input, which generated images need."""
    if not input_gradient_reaches(teacher.network, teacher.spec.size):
        why = (
            QUANTIZED
            if QUANTIZED in teacher.network.notes
            else "archives that were optimised for inference, and conversions to whole numbers, do that; use the file "
            "from before the optimisation, or export the network without the conversion"
        )
        raise TeacherError(f"{source} passes no gradient to its input: {why}")


def _inherit(student: Classifier, teacher: Classifier) -> None:
    """Copy the teacher's layers that fit into the student, and add a note about it."""
    total = student.parameter_count()
    if inherited := inherit_layers(student.network.get_submodule("module"), teacher.network):
        note = f"The student starts with layers of the teacher: {inherited:,} of its {total:,} parameters."
        student.origin = replace(student.origin, notes=(*student.origin.notes, note))


def _check_apart(pool: Path | None, eval_data: str | None) -> None:
    """Raise UsageError when pool and evaluation data are the same folder, or one contains the other."""
    if pool is None or eval_data is None:
        return
    learned, measured = pool.resolve(), Path(eval_data).resolve()
    if learned == measured or learned in measured.parents or measured in learned.parents:
        raise UsageError(
            f"--eval {eval_data} and --pool {pool} share images: accuracy on images that the student was trained on "
            "is meaningless; evaluate on other images, or leave --eval out"
        )


def _worth_compiling(config: TrainConfig) -> bool:
    """Return whether the run uses torch.compile; `auto` does when the run is long enough to gain from it."""
    if config.compile != "auto":
        return config.compile == "on"
    return config.steps >= WORTH_COMPILING_STEPS if config.budget is None else config.budget >= WORTH_COMPILING_S
