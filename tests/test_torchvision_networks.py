"""`--arch torchvision/NAME`: torchvision's own layouts, names of older versions, auxiliary heads, and the advice."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import dfkd
from labelled_images import balanced, save_labelled
from loading_helpers import assert_same, load
from PIL import Image
from torchvision import models

from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.loading import LoadOptions
from dfkd_cli.loading.architecture import fitting_arguments
from dfkd_cli.loading.catalogue import check_known, known_input, plain_module
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.torchvision_zoo import image_side
from dfkd_cli.narrowing.plan import shrink
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.students.from_teacher import student_from_teacher
from dfkd_cli.students.student import save_student

SIZE = (3, 32, 32)
FACTS: dict[str, Any] = {"input_size": SIZE, "mean": (0.0,), "std": (1.0,)}
LOOK = ("--input-size", "3x32x32", "--mean", "0", "--std", "1")
SMALL, TINY = "mobilenet_v3_small", "squeezenet1_1"


def make(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return models.get_model(name, weights=None, num_classes=4, **options).eval()


@pytest.fixture(scope="module")
def module() -> Any:
    network = make(SMALL)
    return balanced(network, network.classifier[3], 0, SIZE)


@pytest.fixture(scope="module")
def path(module, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "t.pt"
    torch.save(module.state_dict(), path)
    return path


def test_the_accuracy_is_that_of_torchvisions_network(module, path, tmp_path):
    data = save_labelled(module, tmp_path / "data", SIZE, 4)
    result = dfkd("evaluate", path, "--data", data, "--json", "--arch", f"torchvision/{SMALL}", *LOOK)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["accuracy"] == 1.0


def test_the_error_without_an_architecture_names_the_flag(path):
    with pytest.raises(UsageError, match=rf"layout of torchvision's {SMALL}: --arch torchvision/{SMALL}\)"):
        load(path, **FACTS)


def test_the_error_for_a_layout_of_timm_names_the_flag(path):
    with pytest.raises(TeacherError, match=rf"layout of torchvision's {SMALL}: --arch torchvision/{SMALL};"):
        load(path, arch="mobilenetv3_small_100", **FACTS)


@pytest.mark.parametrize("arch", [SMALL, f"torchvision.{SMALL}", "torchvision/mobilenet_v3_smal"])
def test_names_that_only_torchvision_has_are_suggested(arch):
    with pytest.raises(UsageError, match=rf"did you mean torchvision/{SMALL}"):
        check_known(arch)


@pytest.mark.parametrize("part", ["module.", "features.module."])
def test_a_checkpoint_of_pytorchs_example_states_the_name(tmp_path, part):
    module = make(TINY)
    weights = {re.sub(r"^", part, name) if part == "module." else name.replace("features.", part): value
               for name, value in module.state_dict().items()}  # fmt: skip
    torch.save({"epoch": 3, "arch": TINY, "state_dict": weights, "best_acc1": torch.tensor(71.0)}, tmp_path / "t.pt")
    classifier = load(tmp_path / "t.pt", **FACTS)
    assert classifier.origin.arch == f"torchvision/{TINY}"
    assert_same(classifier, module)


def test_auxiliary_heads_are_left_out_with_a_note(tmp_path):
    module = make("googlenet", init_weights=False)
    torch.save(module.state_dict(), tmp_path / "t.pt")
    classifier = load(tmp_path / "t.pt", arch="torchvision/googlenet", **FACTS)
    assert_same(classifier, module)
    assert "auxiliary heads aux1, aux2 are left out" in classifier.origin.notes[0]


def test_names_of_older_versions_load_into_both_libraries(tmp_path):
    module = make("densenet121")
    weights = {name: value for name, value in module.state_dict().items() if "num_batches" not in name}
    old = {re.sub(r"(\.norm|\.conv)([12]\.)", r"\1.\2", name): value for name, value in weights.items()}
    assert old.keys() != weights.keys()
    torch.save({"teacher": old, "student": {name: value + 1 for name, value in old.items()}}, tmp_path / "t.pt")
    for arch in ("densenet121", "torchvision/densenet121"):
        with pytest.raises(UsageError, match="teacher, student"):
            load(tmp_path / "t.pt", arch=arch, **FACTS)
        assert_same(load(tmp_path / "t.pt", arch=arch, prefix="teacher", **FACTS), module)


def test_a_vision_transformer_has_the_size_of_its_position_embedding():
    with torch.device("meta"):
        weights = models.vit_b_32(num_classes=4, image_size=96).state_dict()
    assert image_side(weights) == 96
    plain, findings = plain_module("torchvision/vit_b_32").state_dict(), Findings(LoadOptions())
    assert fitting_arguments("torchvision/vit_b_32", plain, weights, findings)["img_size"] == (96, 96)
    wrong = Findings(LoadOptions(input_size=(3, 224, 224)))
    with pytest.raises(UsageError, match=r"--input-size says \(3, 224, 224\)"):
        fitting_arguments("torchvision/vit_b_32", plain, weights, wrong)


def test_other_channels_of_the_images(tmp_path):
    module = make(TINY)
    module.features[0] = torch.nn.Conv2d(1, 64, 3, stride=2)
    torch.save(module.eval().state_dict(), tmp_path / "t.pt")
    facts = FACTS | {"input_size": (1, 32, 32)}
    assert_same(load(tmp_path / "t.pt", arch=f"torchvision/{TINY}", **facts), module)


def test_published_weights_have_known_images():
    known = known_input("torchvision/mobilenet_v2")
    assert known is not None
    assert (known.num_classes, known.input_size, known.std) == (1000, (3, 224, 224), (0.229, 0.224, 0.225))
    inception = known_input("torchvision/inception_v3")
    assert inception is not None
    assert (inception.input_size, inception.mean) == ((3, 299, 299), (0.5, 0.5, 0.5))


def test_a_network_that_asks_for_the_versions_of_its_layers(tmp_path):
    module = make("mnasnet0_5").eval()
    torch.save(module.state_dict(), tmp_path / "t.pt")
    teacher = load(tmp_path / "t.pt", arch="torchvision/mnasnet0_5", **FACTS)
    assert_same(teacher, module)
    _, student, plan = student_from_teacher(teacher, 0.8, load_recipe("ssd", []).narrowing)
    shrink(student.eval().network.get_submodule("module"), plan.gone)
    save_student(student, tmp_path, None, "hash", "ssd", narrowed=True)
    assert_same(load(tmp_path / "student.safetensors"), student.network.get_submodule("module"))


def test_a_student_made_from_it_is_loaded_again(tmp_path):
    torch.save(make(TINY).state_dict(), tmp_path / "t.pt")
    teacher = load(tmp_path / "t.pt", arch=f"torchvision/{TINY}", **FACTS)
    _, student, plan = student_from_teacher(teacher, 0.5, load_recipe("ssd", []).narrowing)
    shrink(student.eval().network.get_submodule("module"), plan.gone)
    save_student(student, tmp_path, None, "hash", "ssd", narrowed=True)
    compared = ("--teacher", tmp_path / "t.pt", "--arch", f"torchvision/{TINY}", *LOOK)
    (tmp_path / "images").mkdir()
    for grey in (0, 90, 200):
        Image.new("RGB", SIZE[1:], (grey, grey, grey)).save(tmp_path / "images" / f"{grey}.png")
    seen = dfkd("evaluate", tmp_path / "student.safetensors", "--json", *compared, "--images", tmp_path / "images")
    assert seen.exit_code == 0, seen.stderr
    assert json.loads(seen.stdout)["parameters"] < 400_000
    assert_same(load(tmp_path / "student.safetensors"), student.network.get_submodule("module"))
