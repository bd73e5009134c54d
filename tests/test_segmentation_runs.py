"""Runs on segmentation networks through the command line, and the dense parts of the recipes."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import LOOK, SMALL, TINY_RUN, dfkd, save_teacher
from loading_helpers import script
from segmentation_networks import CLASSES, SIZE, make_fcn, save_scenes, segmenter
from tiny_methods import generator_loss, make

from dfkd_cli.export.forms import EXPORT_FORMS
from dfkd_cli.loading import load_classifier
from dfkd_cli.methods.ssd import modulation
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.synthesis.buffer import BufferConfig
from dfkd_cli.synthesis.dense_buffer import DenseReplayBuffer, Rarity
from dfkd_cli.synthesis.generator_loss import Generated
from dfkd_cli.synthesis.trainer import generated_spec
from dfkd_cli.training.augmentation import random_crop

FLAGS = ("--input-size", "3x16x24", "--mean", "0.4", "--std", "0.3")
TINY_GENERATOR = [word for value in SMALL if "buffer" not in value for word in ("--set", value)]
TINY_TRAINING = [word for value in ("train.steps=3", "train.batch_size=4") for word in ("--set", value)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return script(make_fcn(), tmp_path_factory.mktemp("teacher") / "teacher.pt", SIZE)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return save_scenes(tmp_path_factory.mktemp("data") / "scenes", 6, SIZE[1:])


def settings(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def run(teacher: Path, out: Path, *arguments: object) -> dict[str, Any]:
    result = dfkd("compress", teacher, *FLAGS, "--out", out, "--progress", "none", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def made(teacher, scenes, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """The folder and the report of a run."""
    out = tmp_path_factory.mktemp("ssd") / "out"
    return out, run(teacher, out, "--eval", scenes, *TINY_RUN, *settings("options.void_class=3"))


def test_ssd_compresses_a_segmentation_network(made, teacher, scenes):
    out, report = made
    measured = report["segmentation"]
    assert report["task"] == "segmentation"
    assert measured["relative_miou"] == pytest.approx(measured["student"]["miou"] / measured["teacher"]["miou"])
    assert len(measured["classes"]) == CLASSES
    assert report["student"]["parameters"] <= report["teacher"]["parameters"] / 2
    page = (out / "report.html").read_text()
    assert "Mean IoU kept" in page
    assert "pixels of evaluation images" in page
    assert "pipeline_tag: image-segmentation" in (out / "README.md").read_text()
    evaluated = dfkd("evaluate", out, "--data", scenes, "--teacher", teacher, *FLAGS, "--json")
    assert evaluated.exit_code == 0, evaluated.output
    assert json.loads(evaluated.stdout)["scores"] == pytest.approx(measured["student"])
    assert dfkd("evaluate", out).exit_code == 0  # on the calibration images


def test_a_student_becomes_a_file_of_8_bits(made, scenes, tmp_path):
    pytest.importorskip("onnx", reason="needs the extra 'export'")
    pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    path = tmp_path / "student.int8.onnx"
    exported = dfkd("export", made[0], "--to", "onnx", "--int8", "--min-agreement", 0, "--out", path, "--json")
    assert exported.exit_code == 0, exported.output
    assert json.loads(exported.stdout)["int8"]["agreement"] > 0.5
    measured = dfkd("evaluate", path, "--data", scenes, "--json")
    assert measured.exit_code == 0, measured.output
    assert json.loads(measured.stdout)["pixels"] == made[1]["segmentation"]["pixels"]


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        ("dafl", [*TINY_GENERATOR]),
        ("curriculum", [*TINY_GENERATOR]),
        ("unlabeled", [*TINY_TRAINING, *settings("options.selection.keep=4")]),
    ],
)
def test_other_recipes_run(tmp_path, teacher, scenes, recipe, more):
    pool = ["--pool", scenes / "images"] if recipe == "unlabeled" else []
    report = run(teacher, tmp_path / "out", "--recipe", recipe, *pool, *more, "--no-calibration")
    assert report["recipe"]["name"] == recipe
    assert 0.0 <= report["agreement"] <= 1.0
    assert "for almost no image" not in " ".join(report["notes"])


def test_a_void_class_that_the_teacher_does_not_have_is_refused(tmp_path, teacher):
    result = dfkd("compress", teacher, *FLAGS, "--out", tmp_path / "out", *settings(f"options.void_class={CLASSES}"))
    assert result.exit_code == 2
    assert f"options.void_class is {CLASSES}; the teacher has the classes 0 to {CLASSES - 1}" in result.stderr


def test_options_for_the_other_task_are_refused(tmp_path, teacher, scenes):
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdefgh"[:CLASSES]))
    result = dfkd("evaluate", teacher, *FLAGS, "--data", scenes, "--classes", names)
    assert result.exit_code == 2
    assert "--classes is for images with a class each" in result.stderr
    assert "use --class-names" in result.stderr


@pytest.mark.parametrize("recipe", ["csd", "cgdd"])
def test_recipes_with_labels_per_image_are_refused(tmp_path, teacher, recipe):
    result = dfkd("compress", teacher, *FLAGS, "--recipe", recipe, "--out", tmp_path / "out")
    assert result.exit_code == 4
    assert "one answer per image" in result.stderr


def test_a_classifier_is_no_student_of_a_segmentation_network(tmp_path, teacher):
    result = dfkd("compress", teacher, *FLAGS, "--student", "cifar_resnet8", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "one answer per image, the teacher has one answer per pixel" in result.stderr


def test_the_segmentation_section_replaces_values_and_set_wins():
    plain, dense = (load_recipe("ssd", [], task) for task in ("classification", "segmentation"))
    assert (plain.options.generator.image_share, dense.options.generator.image_share) == (1.0, 0.5)
    assert plain.options.gamma == dense.options.gamma
    assert (
        load_recipe("ssd", ["options.generator.image_share=1.0"], "segmentation").options.generator.image_share == 1.0
    )


def test_generated_images_are_parts_in_multiples_of_32():
    spec = segmenter().spec
    large = type(spec)((3, 192, 256), spec.mean, spec.std, 4, task="segmentation")
    assert generated_spec(large, 0.5).size == (3, 96, 128)
    assert generated_spec(large, 0.4).size == (3, 64, 96)
    assert generated_spec(spec, 0.5).size == SIZE


def test_crops_are_parts_of_their_images():
    images = torch.arange(2 * 40 * 70).float().view(2, 1, 40, 70)
    crops = random_crop(images, 0.5, torch.Generator().manual_seed(0))
    assert crops.shape == (2, 1, 32, 32)
    for image, crop in zip(images, crops, strict=True):
        row, column = divmod(int(crop[0, 0, 0]) - int(image[0, 0, 0]), 70)
        assert torch.equal(crop, image[:, row : row + 32, column : column + 32])


def test_no_image_is_made_for_the_void_class():
    loop = make("ssd", "options.void_class=1")
    with torch.no_grad():
        loop.setting.teacher.network.module[-1].bias[1] += 100.0
    generated = generator_loss(loop)(torch.rand(32, *loop.setting.teacher.spec.size), None, 0.0, warm=False)
    assert (generated.teacher_logits.argmax(dim=1) == 1).all()
    others = generated.teacher_logits[:, [0, 2]].argmax(dim=1) * 2
    assert torch.equal(generated.labels, others)


class TestDenseBuffer:
    def make(self, rarity: Rarity = "complement") -> DenseReplayBuffer:
        config = BufferConfig(size=2, mb=1, eviction="easiest")
        return DenseReplayBuffer(
            config,
            segmenter().spec,
            torch.device("cpu"),
            alpha=0.6,
            beta=0.4,
            smoothing=0.0,
            rarity=rarity,
        )

    def generated(self, *classes: int) -> Generated:
        """Return one image per class, of which three quarters have that class and the rest class 0."""
        labels = torch.zeros(len(classes), *SIZE[1:], dtype=torch.long)
        for image, number in zip(labels, classes, strict=True):
            image[:, : SIZE[2] * 3 // 4] = number
        logits = 5.0 * torch.nn.functional.one_hot(labels, CLASSES).permute(0, 3, 1, 2).float()
        return Generated(torch.zeros(len(classes), *SIZE), labels, logits, None, {})

    def test_shares_are_those_of_pixels(self):
        buffer = self.make()
        buffer.add(self.generated(1, 2))
        torch.testing.assert_close(buffer.class_shares(), torch.tensor([0.25, 0.375, 0.375, 0.0]))
        assert buffer.classes.tolist() == [1, 2]

    def test_phi_is_per_pixel(self):
        buffer, generated = self.make(), self.generated(1, 2)
        buffer.add(generated)
        options: Any = SimpleNamespace(gamma=2.0, diversity=True, difficulty=True)
        phi = modulation(buffer, options, generated.teacher_logits, generated.labels)
        sure = float(torch.tensor([5.0, 0.0, 0.0, 0.0]).softmax(0)[0])
        expected = (1.0 - buffer.class_shares()[generated.labels]) * (1.0 - sure) ** 2
        torch.testing.assert_close(phi, expected)

    def test_the_logarithm_tells_frequent_classes_apart(self):
        buffer = self.make("logarithm")
        buffer.add(self.generated(1, 1))
        rarities = buffer.rarities()
        assert rarities[3] == pytest.approx(1.0)
        assert 0.0 < rarities[1] < rarities[0] < 0.1

    def test_the_image_of_crowded_classes_is_replaced(self):
        buffer = self.make()
        buffer.add(self.generated(0, 2))
        buffer.add(self.generated(3))
        assert sorted(buffer.classes.tolist()) == [2, 3]


def test_a_torchvision_network_goes_through_every_command(tmp_path):
    """LR-ASPP with random weights and an auxiliary head's weights, which are left out."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    whole = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).eval()
    path = tmp_path / "teacher.pth"
    torch.save(whole.state_dict() | {"aux_classifier.4.weight": torch.zeros(3, 10, 1, 1)}, path)
    flags = (
        "--arch",
        "torchvision/lraspp_mobilenet_v3_large",
        "--input-size",
        "3x96x160",
        "--mean",
        "0.5",
        "--std",
        "1",
    )
    found = json.loads(dfkd("inspect", path, *flags, "--json").stdout)
    assert (found["task"], found["classes"]) == ("segmentation", 3)
    out = tmp_path / "out"
    tiny = [*TINY_RUN, *settings("train.steps=1", "train.batch_size=2", "options.buffer.size=2")]
    result = dfkd("compress", path, *flags, *tiny, "--student", flags[1], "--out", out, "--no-calibration", "--quiet")
    assert result.exit_code == 0, result.output
    scenes = save_scenes(tmp_path / "scenes", 2, (33, 47), values=(0, 1, 2))
    result = dfkd("evaluate", out, "--data", scenes, "--teacher", path, *flags)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("form", ["pt2", "torchscript", "onnx"])
def test_exports_give_logits_or_classes_of_the_size_of_the_image(tmp_path, form):
    """The network has stride 2, and the image an odd height and width."""
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    path = (
        script(make_fcn(), tmp_path / "teacher.pt", (3, 15, 23)) if form == "torchscript" else tmp_path / "teacher.pth"
    )
    flags = ["--input-size", "3x15x23", "--mean", "0.4", "--std", "0.3"]
    if form != "torchscript":
        torch.save(make_fcn(), path)
        flags.append("--trust-pickle")
    for more, shape in ([], (CLASSES, 15, 23)), (["--class-map"], (15, 23)):
        file = tmp_path / f"export{len(more)}.{form}"
        result = dfkd("export", path, *flags, "--to", form, "--with-preprocessing", "--out", file, "--json", *more)
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert all(seen["same_top1"] == seen["count"] for seen in report["comparisons"])
        assert EXPORT_FORMS[form].open(file.read_bytes())(torch.rand(1, 3, 15, 23)).shape == (1, *shape)


def test_a_class_map_of_a_classifier_is_refused(tmp_path):
    result = dfkd("export", save_teacher(tmp_path / "t.pt"), *LOOK, "--to", "pt2", "--class-map")
    assert result.exit_code == 2
    assert "--class-map is for segmentation networks" in result.stderr


def test_an_smp_network_goes_through_every_command(tmp_path):
    smp = pytest.importorskip("segmentation_models_pytorch")
    arch = "smp/linknet/tu-mobilenetv3_small_050"
    torch.manual_seed(0)
    whole = smp.create_model("linknet", "tu-mobilenetv3_small_050", encoder_weights=None, classes=3).eval()
    whole.save_pretrained(tmp_path / "teacher")
    flags = ("--input-size", "3x96x160", "--mean", "0.5", "--std", "1")
    found = json.loads(dfkd("inspect", tmp_path / "teacher", *flags, "--json").stdout)
    assert (found["task"], found["classes"], found["arch"]) == ("segmentation", 3, arch)
    out = tmp_path / "out"
    tiny = [*TINY_RUN, *settings("train.steps=1", "train.batch_size=2", "options.buffer.size=2")]
    result = dfkd("compress", tmp_path / "teacher", *flags, *tiny, "--student", arch, "--out", out, "--quiet")
    assert result.exit_code == 0, result.output
    assert dfkd("evaluate", out).exit_code == 0
    student = smp.from_pretrained(out).eval()
    images = torch.rand(1, 3, 96, 160)
    torch.testing.assert_close(student(images - 0.5), load_classifier(str(out))(images), rtol=1e-3, atol=1e-4)


def test_without_smp_its_networks_name_the_extra(tmp_path, teacher, monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    result = dfkd("compress", teacher, *FLAGS, "--student", "smp/linknet/resnet18", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "pip install 'dfkd[segmentation]'" in result.stderr
