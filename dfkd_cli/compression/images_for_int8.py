"""Calibration images for a network that is quantised: those beside it, or images made for this purpose."""

from collections.abc import Callable

import torch

from dfkd_cli.compression.load_job import check_gradient
from dfkd_cli.compression.make_calibration import make_calibration
from dfkd_cli.errors import UsageError
from dfkd_cli.evaluation.calibration import CALIBRATION_FILE, Calibration
from dfkd_cli.evaluation.without_data import calibration_beside
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.machine.runtime import Runtime, choose_dtype
from dfkd_cli.methods import METHODS
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.onnx import OnnxClassifier
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.training.clock import BudgetClock
from dfkd_cli.training.method import ImageSource
from dfkd_cli.training.setting import Setting

RECIPE = "ssd"
# There is no student to disagree with, and none to learn from images between two classes. Images of which the network
# is certain are closer to those that it will see.
_WITHOUT_STUDENT = [
    "options.inversion.weights.adversarial=0",
    "options.inversion.weights_without_batchnorm.adversarial=0",
    "options.difficulty=false",
]
SEED = 0


def calibrate(source: str, network: Classifier, budget: float, note: Callable[[str], None]) -> Calibration:
    """Return the calibration images beside `source`, or images made from `network` in `budget` seconds.

    Raises UsageError for an ONNX file without such images, and TeacherError for images that are damaged or those of
    another network, and for a network that passes no gradient to its input.
    """
    beside = calibration_beside(source, network)
    if beside is not None:
        note(f"calibrated on the {len(beside):,} images in {CALIBRATION_FILE}")
        return beside
    if isinstance(network, OnnxClassifier):
        raise UsageError(
            f"there is no {CALIBRATION_FILE} beside {source}, and no images can be made from an ONNX file; give the "
            "network that it was exported from"
        )
    check_gradient(source, network)
    note(f"there is no {CALIBRATION_FILE} beside {source}: making images from it for {budget:,.0f} s (--budget)")
    return generated_calibration(network, budget)


def generated_calibration(network: Classifier, budget: float) -> Calibration:
    """Return about 1,000 images of the default recipe's generator, trained on `network` for `budget` seconds.

    The network stays where it is. Seeds torch's global random generator.
    """
    clock = BudgetClock(budget)
    home, device = network.mean.device, resolve_device("auto")
    runtime = Runtime(device, choose_dtype("auto", device))
    try:
        source = _image_source(runtime.place(network), runtime)
        progress = 0.0
        while progress < 1.0:
            source.round(progress)
            progress = clock.progress(0)
        calibration = make_calibration(network, source, "synthetic", network.origin.sha256 or "")
    finally:
        network.to(home)
    if calibration is None:
        raise ValueError("a generator has no images")
    return calibration


def _image_source(network: Classifier, runtime: Runtime) -> ImageSource:
    """Return the generator of the default recipe; the network stands in for the student, which it does without."""
    recipe = load_recipe(RECIPE, _WITHOUT_STUDENT, network.spec.task)
    torch.manual_seed(SEED)
    rng = torch.Generator(runtime.device)
    rng.manual_seed(SEED)
    setting = Setting(
        network,
        network,
        batch_size=recipe.train.batch_size,
        augmentation=recipe.augmentation,
        runtime=runtime,
        rng=rng,
    )
    return METHODS[recipe.method].build(setting, recipe.options).source
