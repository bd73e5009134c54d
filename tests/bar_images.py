"""Images with a bright bar at one edge, a network that finds it, and image files that Pillow cannot write."""

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

EDGES = ("bottom", "left", "right", "top")  # the classes, in alphabetical order; "unlit" follows them
SIDE = 16


class BarNetwork(nn.Module):
    """Predicts the brightest edge of an image, and the class `unlit` for a dark or an even image."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(1)
        edges = x[:, -4:].mean((1, 2)), x[:, :, :4].mean((1, 2)), x[:, :, -4:].mean((1, 2)), x[:, :4].mean((1, 2))
        return torch.stack([*edges, x.mean((1, 2)) * 0.9 + 0.25], dim=1)


def save_network(path: Path, channels: int = 3) -> list[object]:
    """Write the network as TorchScript; return the words of the command line that describe it."""
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(BarNetwork(), torch.rand(2, channels, SIDE, SIDE)), path)
    return [path, "--input-size", f"{channels}x{SIDE}x{SIDE}", "--mean", 0, "--std", 1]


def bar(edge: str, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """Return a grey image [H, W] as uint8 whose bar covers a quarter of it."""
    image = np.full(size, 30, np.uint8)
    rows, columns = size[0] // 4, size[1] // 4
    places = {"bottom": np.s_[-rows:], "left": np.s_[:, :columns], "right": np.s_[:, -columns:], "top": np.s_[:rows]}
    image[places[edge]] = 255
    return image


def save_bars(root: Path, write: Callable[[np.ndarray, Path], object], suffix: str) -> Path:
    """Write one image file per edge and class folder, and an even dark one; return the folder."""
    for name in (*EDGES, "unlit"):
        (root / name).mkdir(parents=True)
        write(bar(name) if name != "unlit" else np.full((SIDE, SIDE), 30, np.uint8), root / name / f"0{suffix}")
    return root


def write_png16(values: np.ndarray, path: Path) -> None:
    """Write uint16 [H, W] or [H, W, C] as a PNG with 16 bits per channel, of grey, grey and alpha, RGB or RGBA."""
    height, width, channels = values.reshape(*values.shape[:2], -1).shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    framed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def write_tiff(values: np.ndarray, path: Path, white_is_low: bool = False, bits: int | None = None) -> None:
    """Write a little-endian TIFF without compression: integers, floats, or with `bits` 12 packed integers."""
    height, width, channels = values.reshape(*values.shape[:2], -1).shape
    depth = bits or values.itemsize * 8
    data = _packed_12_bits(values) if bits == 12 else np.ascontiguousarray(values).tobytes()
    kind = 3 if values.dtype.kind == "f" else 2 if values.dtype.kind == "i" else 1
    photometric = 2 if channels == 3 else 0 if white_is_low else 1
    words = struct.pack("<3H", *[depth] * 3)  # bits per channel do not fit into the tag for more than two channels
    start = 8 + len(words)
    bits_at = (258, 3, channels, depth if channels == 1 else 8)
    tags = [(256, 3, 1, width), (257, 3, 1, height), bits_at, (259, 3, 1, 1), (262, 3, 1, photometric)]
    tags += [(273, 4, 1, start), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data)), (339, 3, 1, kind)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", start + len(data)) + words + data + directory)


def _packed_12_bits(values: np.ndarray) -> bytes:
    pairs = values.astype(np.uint16).reshape(-1, 2)
    first, second = pairs[:, 0], pairs[:, 1]
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8).tobytes()
