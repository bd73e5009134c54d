"""`calibration.safetensors`: images that a student was not trained on, with the teacher's logits for them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dfkd_cli.loading.failures import damaged_file
from dfkd_cli.machine.files import write_atomically

CALIBRATION_FILE = "calibration.safetensors"
Kind = Literal["synthetic", "pool"]
_METADATA = "calibration"  # the only key, because several are written in random order, which would change the hash


@dataclass(frozen=True)
class Calibration:
    """Images for checks and for the calibration of quantised networks, which need no labels."""

    images: Tensor  # uint8 [N, C, H, W]
    logits: Tensor  # float32 [N, K] or [N, K, H, W], of the teacher for images / 255
    kind: Kind  # made for this purpose, or images of the user's pool
    student_sha256: str  # of the student that was written with them
    version: str  # of dfkd

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images [B, C, H, W] in [0, 1] and the teacher's logits, on `device`."""
        for images, logits in zip(self.images.split(batch_size), self.logits.split(batch_size), strict=True):
            yield images.to(device).float() / 255.0, logits.to(device)


def write_calibration(calibration: Calibration, path: Path) -> int:
    """Write the file; return its size in bytes."""
    facts = {
        "version": calibration.version,
        "images": calibration.kind,
        "student_sha256": calibration.student_sha256,
    }
    tensors = {"images": calibration.images.cpu().contiguous(), "logits": calibration.logits.cpu().contiguous()}
    content = safetensors.torch.save(tensors, metadata={_METADATA: json.dumps(facts)})
    write_atomically(path, content)
    return len(content)


def read_calibration(path: Path) -> Calibration:
    """Return the content of the file. Raises TeacherError when it is damaged."""
    with damaged_file(path, "a calibration file"):
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            images, logits = file.get_tensor("images"), file.get_tensor("logits")
            facts = json.loads((file.metadata() or {})[_METADATA])
        if (
            images.dtype != torch.uint8
            or images.dim() != 4
            or logits.dtype != torch.float32
            or logits.dim() not in (2, 4)
        ):
            raise ValueError("its tensors have other types or shapes")
        if not 0 < len(images) == len(logits):
            raise ValueError(f"it holds {len(images)} images and logits for {len(logits)}")
        if not logits.isfinite().all():
            raise ValueError("its logits are not finite")
        if facts["images"] not in get_args(Kind):
            raise ValueError("its metadata are not those of dfkd")
        return Calibration(images, logits, facts["images"], str(facts["student_sha256"]), str(facts["version"]))
