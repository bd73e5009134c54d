"""`dfkd evaluate` without its flags: one network, and where there is one its teacher, on labelled images."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from dfkd_cli.data.datasets import open_dataset
from dfkd_cli.evaluation import accuracy as evaluation
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.loading.onnx import load_onnx
from dfkd_cli.loading.sniff import is_onnx
from dfkd_cli.loading.weights_file import file_bytes
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.networks.classifier import Classifier

Source = tuple[str, LoadOptions]  # what the user typed, and the flags for it


@dataclass(frozen=True, kw_only=True)
class Measured(evaluation.Evaluation):
    """What `dfkd evaluate --json` prints."""

    parameters: int
    file_bytes: int | None  # of the weights; None when they do not come from one file


def measure(
    student: Source, data: str, teacher: Source | None, device: str, batch_size: int, note: Callable[[str], None]
) -> Measured:
    """Loads both networks, tells `note` what the user should know of them, and measures."""
    where = resolve_device(device)
    network = _load(*student)
    pictures = open_dataset(data, network.spec)
    reference = None if teacher is None else _load(*teacher)
    for text in (*network.origin.notes, *(reference.origin.notes if reference else ())):
        note(text)
    result = evaluation.evaluate(network, pictures, where, teacher=reference, batch_size=batch_size)
    return Measured(**asdict(result), parameters=network.parameter_count(), file_bytes=file_bytes(student[0]))


def _load(source: str, options: LoadOptions) -> Classifier:
    """What can be evaluated: what can be compressed, and ONNX files."""
    return load_onnx(source, options) if is_onnx(source) else load_classifier(source, options)
