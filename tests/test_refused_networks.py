"""Networks that dfkd cannot use: the message gives the true cause and what to do, and the size only when it is that."""

import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from command_line import dfkd
from loading_helpers import export, load, script
from torch import Tensor, nn

from dfkd_cli.errors import DfkdError, TeacherError, UsageError
from dfkd_cli.loading import LoadOptions
from dfkd_cli.loading.onnx import load_onnx
from dfkd_cli.networks import QUANTIZED
from dfkd_cli.networks.check import NOT_NEGATIVE

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
RGB = (3, 16, 16)
LAST = (16, 16, 3)
VALUES: Any = {"mean": (0.5,), "std": (0.25,)}
SAVERS = {"traced": script, "exported": export}


class Body(nn.Module):
    """A network for images of any size."""

    def __init__(self, channels: int = 3):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def maps(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))

    def rows(self, x: Tensor) -> Tensor:
        return self.maps(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rows(x))


class Around(nn.Module):
    """A body with other code around it."""

    def __init__(self, function: Callable[[Any, Tensor], Any], body: nn.Module | None = None):
        super().__init__()
        self.body = Body() if body is None else body
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.body, x)


def around(function: Callable[[Any, Tensor], Any], body: nn.Module | None = None) -> nn.Module:
    return Around(function, body).eval()


def channels_last() -> nn.Module:
    return around(lambda body, x: body(x.permute(0, 3, 1, 2)))


def refusal(path, kind: type[DfkdError] = TeacherError, **options) -> str:
    """Return the message, which is one line."""
    with pytest.raises(kind) as error:
        load(path, **VALUES, **options)
    (line,) = error.value.lines()
    return line


def run_code(message: str, **names: Any) -> None:
    """Execute the code that a message contains."""
    (code,) = re.findall(r"`((?:torch\.jit\.save|torch\.export\.save)[^`]*)`", message)
    exec(code, {"torch": torch, "torchvision": torchvision, **names})


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("traced", {}),
        ("traced", {"input_size": RGB}),
        ("traced", {"input_size": LAST}),
        ("exported", {"input_size": RGB}),
    ],
    ids=str,
)
def test_channels_last_is_told_apart_and_the_line_exports_it_rightly(tmp_path, monkeypatch, form, options):
    monkeypatch.chdir(tmp_path)
    module = channels_last()
    message = refusal(SAVERS[form](module, tmp_path / "last.pt2", LAST), **options)
    assert "takes its images with the channels last, [B, H, W, C]" in message
    assert "--input-size" not in message
    run_code(message, model=torch.jit.load("last.pt2") if form == "traced" else module)
    (written,) = tmp_path.glob("teacher.*")
    images = torch.rand(2, *RGB)
    torch.testing.assert_close(load(written, mean=(0.0,), std=(1.0,))(images), module(images.permute(0, 2, 3, 1)))


class PixelsLast(nn.Module):
    """A scripted network that takes channels last, without a convolution."""

    def __init__(self):
        super().__init__()
        self.pixel = nn.Linear(3, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.pixel(x)).mean((1, 2)))


@pytest.mark.parametrize("options", [{}, {"input_size": RGB}, {"input_size": LAST}], ids=str)
def test_channels_last_of_scripted_and_pickled_networks(tmp_path, options):
    torch.jit.save(torch.jit.script(PixelsLast().eval()), tmp_path / "t.pt")
    torch.save(PixelsLast().eval(), tmp_path / "p.pt")
    assert "with the channels last" in refusal(tmp_path / "t.pt", **options)
    assert "with the channels last" in refusal(tmp_path / "p.pt", trust_pickle=True, **options)


def test_channels_last_of_onnx_files(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    shapes = {"image": ["batch", *LAST], "logits": ["batch", 3]}
    values = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    mean = onnx.helper.make_node("ReduceMean", ["image"], ["logits"], axes=[1, 2], keepdims=0)
    graph = onnx.helper.make_graph([mean], "network", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "t.onnx")
    with pytest.raises(TeacherError, match=r"channels last.*`torch\.onnx\.export\(.*tf2onnx's --inputs-as-nchw$"):
        load_onnx(str(tmp_path / "t.onnx"), LoadOptions(**VALUES))


def test_a_size_in_the_wrong_order_is_no_network_with_channels_last(tmp_path):
    message = refusal(script(around(lambda body, x: body(x)), tmp_path / "t.pt", RGB), input_size=LAST)
    assert message.endswith("it accepts 3x16x16; give its true size with --input-size CxHxW")


def test_the_size_is_advised_only_with_a_size_that_is_accepted(tmp_path):
    fixed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 22 * 22, 5)).eval()
    message = refusal(script(fixed, tmp_path / "t.pt", (3, 24, 24)), input_size=RGB)
    assert message.endswith("it accepts 3x24x24; give its true size with --input-size CxHxW")
    odd = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 18 * 20, 5)).eval()
    message = refusal(script(odd, tmp_path / "t.pt", (3, 20, 22)), input_size=RGB)
    assert message.endswith("works either; if its images are not square, check --input-size")


@pytest.mark.parametrize(
    ("form", "kind", "options"),
    [
        ("traced", torch.bfloat16, {}),
        ("traced", torch.float64, {"input_size": RGB}),
        ("exported", torch.float16, {}),
    ],
    ids=str,
)
def test_casts_inside_a_network_are_the_cause(tmp_path, form, kind, options):
    module = around(lambda body, x: body(x.to(kind)), Body().to(kind))
    message = refusal(SAVERS[form](module, tmp_path / "t.pt2", RGB), **options)
    assert f"its forward converts tensors to {str(kind).removeprefix('torch.')}, " in message
    assert "export it in float32" in message
    assert "--input-size" not in message
    SAVERS[form](around(lambda body, x: body(x), Body()), tmp_path / "t.pt2", RGB)
    assert load(tmp_path / "t.pt2", **VALUES, **options).spec.num_classes == 5


class OnCuda(nn.Module):
    """A network that moves its images to a device of its own."""

    def __init__(self):
        super().__init__()
        self.body = Body()
        self.place = torch.device("cuda")

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.cuda() + torch.zeros(1, device="cuda").to(self.place)).cpu()


def test_a_device_inside_a_scripted_network_is_that_of_the_images(tmp_path):
    module = OnCuda().eval()
    torch.jit.save(torch.jit.script(module), tmp_path / "t.pt")
    classifier = load(tmp_path / "t.pt", mean=(0.0,), std=(1.0,))
    images = torch.rand(2, *RGB)
    torch.testing.assert_close(classifier(images), module.body(images))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the network runs where there is a GPU")
@pytest.mark.parametrize("options", [{}, {"input_size": RGB}], ids=str)
def test_a_device_inside_a_pickled_network_is_the_cause(tmp_path, options):
    torch.save(OnCuda().eval(), tmp_path / "t.pt")
    message = refusal(tmp_path / "t.pt", trust_pickle=True, **options)
    assert "needs another device than the CPU: export it on the CPU" in message
    assert "--input-size" not in message


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x.mean((2, 3)) + y.mean((2, 3))


class OfList(nn.Module):
    def forward(self, x: list[Tensor]) -> Tensor:
        return x[0].mean((2, 3))


class OfDict(nn.Module):
    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return x["image"].mean((2, 3))


class Whole(nn.Module):
    """A network of whole numbers: an embedding of each value."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(256, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(x).mean((1, 2, 3))


@pytest.mark.parametrize("options", [{}, {"input_size": RGB}], ids=str)
@pytest.mark.parametrize(
    ("module", "cause"),
    [
        (Two(), "forward needs the argument y besides the images"),
        (OfList(), "forward takes List[Tensor] instead of a tensor"),
        (OfDict(), "forward takes Dict[str, Tensor] instead of a tensor"),
        (Whole(), "takes pixels as whole numbers"),
    ],
    ids=["two inputs", "list", "dict", "whole numbers"],
)
def test_other_inputs_are_named(tmp_path, module, cause, options):
    torch.jit.save(torch.jit.script(module.eval()), tmp_path / "t.pt")
    message = refusal(tmp_path / "t.pt", **options)
    assert cause in message
    assert "--input-size" not in message


@pytest.mark.parametrize("options", [{}, {"input_size": RGB}], ids=str)
def test_several_inputs_of_a_pickled_network_are_named(tmp_path, options):
    torch.save(Two().eval(), tmp_path / "t.pt")
    message = refusal(tmp_path / "t.pt", trust_pickle=True, **options)
    assert "does not take a batch of images alone" in message
    assert "--input-size" not in message


@pytest.mark.parametrize("options", [{}, {"input_size": (1, 16, 16)}], ids=str)
@pytest.mark.parametrize(
    ("module", "size", "cause"),
    [
        (nn.Linear(256, 5), (256,), "each image as one row of numbers"),
        (around(lambda body, x: body(x[:, None]), Body(1)), (16, 16), "without an axis of channels, [B, H, W]"),
    ],
    ids=["rows", "no channels"],
)
def test_other_shapes_are_named_with_the_line_that_exports_them(tmp_path, monkeypatch, module, size, cause, options):
    monkeypatch.chdir(tmp_path)
    message = refusal(script(module.eval(), tmp_path / "t.pt", size), **options)
    assert cause in message
    run_code(message, model=module)
    assert load(tmp_path / "teacher.pt", input_size=(1, 16, 16), **VALUES).spec.num_classes == 5


def test_one_image_at_a_time_is_named(tmp_path):
    module = around(lambda body, x: body(x[None])[0])
    torch.jit.save(torch.jit.trace(module, torch.rand(*RGB)), tmp_path / "t.pt")
    assert "it takes one image [C, H, W] at a time" in refusal(tmp_path / "t.pt", input_size=RGB)


@pytest.mark.parametrize(("size", "shape"), [((256,), r"\[\w+, 256\]"), ((16, 16), r"\[\w+, 16, 16\]")], ids=str)
def test_an_exported_input_of_another_shape_is_shown(tmp_path, size, shape):
    module = around(lambda body, x: body(x.reshape(-1, 1, 16, 16)), Body(1))
    message = refusal(export(module, tmp_path / "t.pt2", size))
    assert re.search(f"takes an input of shape {shape}; export ", message)


@pytest.mark.parametrize(("form", "options"), [("traced", {}), ("exported", {"input_size": RGB})], ids=str)
def test_outputs_that_leave_a_choice_are_the_cause(tmp_path, form, options):
    path = SAVERS[form](around(lambda body, x: (body(x), [body.rows(x)])), tmp_path / "t.pt2", RGB)
    message = refusal(path, UsageError, **options)
    assert re.search(r"returns 0 \[\d, 5\], 1\.0 \[\d, 8\] for .*; choose the logits with --output NAME$", message)
    assert load(path, output="1.0", **VALUES, **options).spec.num_classes == 8


@pytest.mark.parametrize("form", SAVERS)
def test_the_logits_inside_nested_outputs_are_found(tmp_path, form):
    path = SAVERS[form](around(lambda body, x: ((body(x),), body.maps(x))), tmp_path / "t.pt2", RGB)
    assert load(path, **VALUES).spec.num_classes == 5


def test_the_best_classes_are_no_logits(tmp_path):
    path = script(around(lambda body, x: tuple(body(x).topk(4))), tmp_path / "t.pt", RGB)
    known: Any = {"input_size": RGB}
    for options in ({}, known):
        assert "the best 4 of each image; export it without its last step" in refusal(path, **options)


def test_class_numbers_beside_logits_are_no_choice(tmp_path):
    path = script(around(lambda body, x: (body(x).argsort(1), body(x))), tmp_path / "t.pt", RGB)
    module = Body().eval()
    images = torch.rand(3, *RGB)
    torch.testing.assert_close(load(path, mean=(0.0,), std=(1.0,))(images), module(images))


@pytest.mark.parametrize("options", [{}, {"input_size": RGB}], ids=str)
def test_one_batch_size_is_the_cause(tmp_path, options):
    path = script(around(lambda body, x: body.head(body.rows(x).view(1, 8))), tmp_path / "t.pt", RGB, batch=1)
    message = refusal(path, **options)
    assert "works at batch size 1 only" in message
    assert "--input-size" not in message


def test_a_batch_size_fixed_by_a_tensor_is_found(tmp_path):
    path = script(around(lambda body, x: body(x) + torch.zeros_like(body(x)).detach()), tmp_path / "t.pt", RGB)
    assert load(path, input_size=RGB, **VALUES).network.batch_size is None
    offsets = torch.zeros(16, 5)
    path = script(around(lambda body, x: body(x) + offsets), tmp_path / "t.pt", RGB)
    assert load(path, input_size=RGB, **VALUES).network.batch_size == 16


@pytest.mark.parametrize("options", [{}, {"input_size": RGB}], ids=str)
def test_outputs_that_no_size_turns_into_logits_are_the_cause(tmp_path, options):
    message = refusal(script(around(lambda body, x: body.maps(x).flatten(2)), tmp_path / "t.pt", RGB), **options)
    assert re.search(r"returns \[\d, 8, \d+\] for", message)
    assert message.endswith("or export the part of the network that returns class scores")


def test_a_root_of_the_pixels_is_accepted_with_a_note(tmp_path):
    path = script(around(lambda body, x: body(x.sqrt())), tmp_path / "t.pt", RGB)
    assert NOT_NEGATIVE in load(path, mean=(0.0,), std=(1.0,), input_size=RGB).origin.notes
    assert NOT_NEGATIVE not in load(script(Body().eval(), tmp_path / "t.pt", RGB), **VALUES).origin.notes


def test_infinite_outputs_of_sound_weights_are_not_called_damaged(tmp_path):
    path = script(around(lambda body, x: body(x) / (body(x) * 0.0)), tmp_path / "t.pt", RGB)
    message = refusal(path, input_size=RGB)
    assert "although none of its weights is NaN" in message
    assert "damaged" not in message


def optimised(call: str, path) -> None:
    traced: Any = torch.jit.trace(Body().eval(), torch.rand(4, *RGB))
    if call == "torch.jit.optimize_for_inference":
        torch.jit.save(torch.jit.optimize_for_inference(traced), path)
    elif call == "torch.utils.mkldnn.to_mkldnn":
        from torch.utils.mkldnn import to_mkldnn

        body = Body().eval()
        body.conv = to_mkldnn(body.conv)
        module = around(lambda body, x: body.head(body.conv(x.to_mkldnn()).to_dense().mean((2, 3))), body)
        torch.jit.save(torch.jit.trace(module, torch.rand(4, *RGB)), path)
    else:  # this torch may lack the packages; what the calls leave in the code is the same everywhere
        torch.jit.save(traced, path)
        name = next(name for name in zipfile.ZipFile(path).namelist() if name.endswith(".py"))
        code = {
            "torch.utils.mobile_optimizer.optimize_for_mobile": "_0 : __torch__.torch.classes.xnnpack.Conv2dOpContext",
            "torch_tensorrt.compile": "_0 : __torch__.torch.classes.tensorrt.Engine",
            "intel_extension_for_pytorch.optimize": "_0 = ops.torch_ipex.convolution_forward(x)",
        }[call]
        with zipfile.ZipFile(path) as archive:
            records = {entry: archive.read(entry) for entry in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for entry, content in records.items():
                archive.writestr(entry, content + f"\n{code}\n".encode() if entry == name else content)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    "call",
    [
        "torch.jit.optimize_for_inference",
        "torch.utils.mkldnn.to_mkldnn",
        "torch.utils.mobile_optimizer.optimize_for_mobile",
        "torch_tensorrt.compile",
        "intel_extension_for_pytorch.optimize",
    ],
)
def test_the_call_that_optimised_an_archive_is_named(tmp_path, call, trust):
    optimised(call, tmp_path / "t.pt")
    message = refusal(tmp_path / "t.pt", input_size=RGB, trust_pickle=trust)
    assert f"was written after {call}" in message
    assert "use the file from before that call, or export it" in message
    assert "--trust-pickle" not in message


def test_a_frozen_archive_is_noted(tmp_path):
    traced: Any = torch.jit.trace(Body().eval(), torch.rand(4, *RGB))
    torch.jit.save(torch.jit.freeze(traced), tmp_path / "t.pt")
    notes = load(tmp_path / "t.pt", **VALUES).origin.notes
    assert any("as torch.jit.freeze and torch.jit.optimize_for_inference leave it" in note for note in notes)
    torch.jit.save(traced, tmp_path / "t.pt")
    assert not any("freeze" in note for note in load(tmp_path / "t.pt", **VALUES).origin.notes)


def test_a_quantized_network_is_evaluated_but_generates_no_images(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated
        module: Any = torch.ao.quantization.quantize_dynamic(Body().eval(), {nn.Linear})
    path = script(module, tmp_path / "t.pt", RGB)
    classifier = load(path, mean=(0.0,), std=(1.0,), input_size=RGB)
    assert QUANTIZED in classifier.origin.notes
    images = torch.rand(3, *RGB)
    torch.testing.assert_close(classifier(images), module(images))
    result = dfkd("compress", path, "--mean", "0", "--std", "1", "--input-size", "3x16x16", "--out", tmp_path / "out")
    assert result.exit_code == 3
    (line,) = result.stderr.strip().splitlines()[-1:]
    assert "passes no gradient to its input: The network is quantized" in line


def test_a_program_of_quantized_operators_is_named(tmp_path):
    path = export(Body().eval(), tmp_path / "t.pt2", RGB)
    with zipfile.ZipFile(path) as archive:
        records = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in records.items():
            operator = b"torch.ops.quantized_decomposed.dequantize_per_tensor.default"
            archive.writestr(entry, content.replace(b"torch.ops.aten.relu.default", operator))
    assert "was written after convert_pt2e" in refusal(path)
