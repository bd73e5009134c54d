"""Images inside a page, by the class that the teacher sees in them."""

import base64
import io
from collections.abc import Sequence

from torch import Tensor

from dfkd_cli.data.sample_grid import to_pillow
from dfkd_cli.report.page.markup import Markup, escape, join

# Up to this side a picture is kept pixel by pixel, as PNG; a larger one becomes a JPEG of the second side, so that a
# hundred of them stay far below the page's limit even when they are noise.
_LOSSLESS_SIDE, _SHRUNK_SIDE = 64, 112
_MANY = 4  # images per class from which the classes stand in columns


def class_label(number: int, names: Sequence[str] | None) -> str:
    """A class's number, with its name where one is known."""
    return str(number) if names is None or names[number] == str(number) else f"{number} {names[number]}"


def gallery(images: Tensor, classes: Tensor, names: Sequence[str] | None) -> Markup:
    """Images [N, C, H, W] in [0, 1] as inline pictures, grouped by `classes` [N]."""
    groups: dict[int, list[str]] = {}
    order = classes.argsort(stable=True)
    for number, image in zip(classes[order].tolist(), images[order].detach().float().cpu(), strict=True):
        groups.setdefault(number, []).append(_source(image))
    kind = "small" if max(images.shape[-2:]) <= _LOSSLESS_SIDE else "large"
    if len(images) >= _MANY * len(groups):
        kind += " columns"
    figures = [_group(class_label(number, names), sources) for number, sources in groups.items()]
    return Markup(f'<div class="gallery {kind}">\n{join(figures)}\n</div>')


def _group(label: str, sources: list[str]) -> Markup:
    text = escape(label)
    pictures = "".join(f'<img src="{source}" alt="class {text}">' for source in sources)
    return Markup(f'<figure><figcaption title="{text}">{text}</figcaption><div>{pictures}</div></figure>')


def _source(image: Tensor) -> str:
    """The image as a data URI."""
    picture = to_pillow(image)
    content, form = io.BytesIO(), "png"
    if max(picture.size) > _LOSSLESS_SIDE:
        form = "jpeg"
        picture.thumbnail((_SHRUNK_SIDE, _SHRUNK_SIDE))
    picture.save(content, form, optimize=True)
    return f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode()}"
