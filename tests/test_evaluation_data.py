"""`dfkd evaluate --json` on folders whose classes or files are easily read wrongly: the accuracy itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from command_line import dfkd
from grey_levels import ARCH, CLASSES, FLAGS, SIZE, grey_weights, level, write_classes, write_image
from jsonschema import Draft202012Validator
from PIL import Image

from dfkd_cli.cli.schema import find_schema
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.students.student import build_student, save_student

NUMBERS = [str(number) for number in range(CLASSES)]
MIXED = ["ant", "Bee", "cat", "Dog", "eel", "fox", "Goat", "hen", "ibis", "jay", "kiwi", "Lynx"]
PLAIN = [chr(ord("a") + number) for number in range(CLASSES)]
SUFFIXES = (".png", ".gif", ".jfif", ".avif", ".webp", ".JPEG", ".tif", ".bmp", ".jp2", ".tga", ".pbm", ".ico")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A state dict that names no classes, for 12 classes."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(grey_weights(), path)
    return path


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("two") / "two.pt"
    torch.save(grey_weights(2), path)
    return path


def evaluated(network: Path, data: object, *more: object, flags: tuple[str, ...] = FLAGS) -> dict[str, Any]:
    result = dfkd("evaluate", network, "--data", data, "--json", *flags, *more)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    Draft202012Validator(find_schema("evaluate")).validate(document)
    return document


def refused(network: Path, data: object, *more: object) -> str:
    result = dfkd("evaluate", network, "--data", data, "--json", *FLAGS, *more)
    assert (result.exit_code, result.stderr.count("error: "), result.stderr.count("\n")) == (2, 1, 1), result.stderr
    return result.stderr


@pytest.mark.parametrize("names", [NUMBERS, MIXED, [f"class{n}" for n in range(1, 13)], [f"{n}_x" for n in NUMBERS]])
def test_an_order_that_nothing_states_is_asked_for(teacher, tmp_path, names):
    write_classes(tmp_path / "data", names)
    message = refused(teacher, tmp_path / "data")
    assert ", ".join(sorted(names)) in message
    assert ", ".join(names) in message  # all of these lists are in natural order
    assert "--class-order natural" in message
    assert "--classes FILE" in message
    natural = evaluated(teacher, tmp_path / "data", "--class-order", "natural")
    assert natural["accuracy"] == 1.0
    assert "natural" in natural["data"]["class_order"]
    assert evaluated(teacher, tmp_path / "data", "--class-order", "text")["accuracy"] < 0.7


@pytest.mark.parametrize(
    "names", [PLAIN, [f"n0144{n:04}" for n in range(0, 1200, 100)], [f"{n:03}" for n in range(12)]]
)
def test_an_order_without_a_doubt_is_taken(teacher, tmp_path, names):
    assert evaluated(teacher, write_classes(tmp_path, names))["accuracy"] == 1.0


@pytest.mark.parametrize(
    "described",
    [
        {"classes": MIXED},
        {"label_names": MIXED},
        {"class_to_idx": {name: number for number, name in enumerate(MIXED)}},
        {"id2label": {number: name for number, name in enumerate(MIXED)}},
        {"meta": {"CLASSES": tuple(name.upper() for name in MIXED)}},
        {"hyper_parameters": {"class_names": MIXED}},
    ],
    ids=lambda described: next(iter(described)),
)
def test_class_names_in_a_checkpoint_are_matched_with_the_folders(tmp_path, described):
    torch.save({"state_dict": grey_weights(), **described}, tmp_path / "teacher.pt")
    found = evaluated(tmp_path / "teacher.pt", write_classes(tmp_path / "data", MIXED))
    assert found["accuracy"] == 1.0
    assert found["data"]["class_order"] == "class names of the network"


def test_folders_of_digits_in_the_order_of_text_are_matched_too(tmp_path):
    names = sorted(NUMBERS)
    torch.save({"model": grey_weights(), "class_to_idx": {n: i for i, n in enumerate(names)}}, tmp_path / "teacher.pt")
    assert evaluated(tmp_path / "teacher.pt", write_classes(tmp_path / "data", names))["accuracy"] == 1.0


@pytest.mark.parametrize("key", ["label_names", "id2label"])
@pytest.mark.parametrize("given", ["folder", "file"])
def test_class_names_in_config_json_are_matched(tmp_path, key, given):
    hub, reverse = tmp_path / "hub", MIXED[::-1]
    hub.mkdir()
    safetensors.torch.save_file(grey_weights(), hub / "model.safetensors")
    names = reverse if key == "label_names" else {str(number): name for number, name in enumerate(reverse)}
    cfg = {"input_size": [1, SIZE, SIZE], "mean": [0.0], "std": [1.0]}
    config = {"architecture": ARCH, "num_classes": CLASSES, "pretrained_cfg": cfg, key: names}
    (hub / "config.json").write_text(json.dumps(config))
    network, flags = (hub, ()) if given == "folder" else (hub / "model.safetensors", FLAGS)
    assert evaluated(network, write_classes(tmp_path / "data", reverse), flags=flags)["accuracy"] == 1.0


def test_class_names_in_safetensors_metadata_are_matched(tmp_path):
    metadata = {"id2label": json.dumps(dict(enumerate(MIXED)))}
    safetensors.torch.save_file(grey_weights(), tmp_path / "t.safetensors", metadata)
    assert evaluated(tmp_path / "t.safetensors", write_classes(tmp_path / "data", MIXED))["accuracy"] == 1.0


def test_placeholders_of_transformers_are_no_class_names(tmp_path):
    torch.save({"state_dict": grey_weights(), "id2label": {n: f"LABEL_{n}" for n in range(12)}}, tmp_path / "t.pt")
    assert evaluated(tmp_path / "t.pt", write_classes(tmp_path / "data", PLAIN))["accuracy"] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + "\r\n".join(NUMBERS) + "\r\n\r\n",
        json.dumps(NUMBERS),
        json.dumps({name: name for name in NUMBERS}),
        json.dumps({name: int(name) for name in NUMBERS}),
        json.dumps({name: [name, "another name"] for name in NUMBERS}),
        json.dumps({"id2label": {name: name for name in NUMBERS}}),
    ],
)
def test_a_file_of_class_names_gives_the_order(teacher, tmp_path, text):
    (tmp_path / "names").write_text(text, encoding="utf-8")
    data = write_classes(tmp_path / "data", NUMBERS)
    assert evaluated(teacher, data, "--classes", tmp_path / "names")["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb", "has 2 names, the network has 12 classes"),
        (b"a\n\nb", "line 2 is empty"),
        (b"a\nb\na", "a is in line 1 and in line 3"),
        (b"[1, 2]", "does not list different class names"),
        (b"{", "no valid JSON"),
        (b"\xff\xfe", "no text in UTF-8"),
        ("\n".join(MIXED).encode(), "a, b, c, d, e, ... are none of the network's classes (ant, Bee,"),
    ],
)
def test_a_file_of_other_class_names_is_refused(teacher, tmp_path, content, message):
    (tmp_path / "names").write_bytes(content)
    assert message in refused(teacher, write_classes(tmp_path / "data", PLAIN), "--classes", tmp_path / "names")


def test_names_that_contradict_each_other_are_refused(teacher, tmp_path):
    data = write_classes(tmp_path / "data", PLAIN)
    named = tmp_path / "named.pt"
    torch.save({"state_dict": grey_weights(), "classes": PLAIN}, named)
    (tmp_path / "names").write_text("\n".join(PLAIN[::-1]))
    assert "leave the option out" in refused(named, data, "--classes", tmp_path / "names")
    assert "exclude each other" in refused(named, data, "--classes", tmp_path / "names", "--class-order", "text")
    torch.save({"state_dict": grey_weights(), "classes": PLAIN[::-1]}, tmp_path / "other.pt")
    message = refused(named, data, "--teacher", tmp_path / "other.pt")
    assert "the network numbers its classes a, b, c, d, e, ..., the teacher l, k, j, i, h, ..." in message
    assert "contradicts the class names" in refused(tmp_path / "other.pt", data, "--class-order", "text")


def test_names_that_only_the_teacher_states_are_used(teacher, tmp_path):
    torch.save({"state_dict": grey_weights(), "classes": MIXED}, tmp_path / "named.pt")
    data = write_classes(tmp_path / "data", MIXED)
    assert evaluated(teacher, data, "--teacher", tmp_path / "named.pt")["accuracy"] == 1.0


def test_a_class_without_images_is_reported(teacher, tmp_path):
    data = write_classes(tmp_path / "data", [None, *PLAIN[1:]])
    (data / "a").mkdir()
    (data / "a" / ".gitkeep").touch()
    found = evaluated(teacher, data)
    assert (found["accuracy"], found["images"]) == (1.0, 22)
    assert found["data"]["classes_without_images"] == ["a"]


@pytest.mark.parametrize("junk", ["empty", "images", "text"])
def test_with_known_names_a_class_may_be_missing_and_a_strange_one_may_not(tmp_path, junk):
    torch.save({"state_dict": grey_weights(), "classes": PLAIN}, tmp_path / "teacher.pt")
    data = write_classes(tmp_path / "data", [None, *PLAIN[1:]])
    found = evaluated(tmp_path / "teacher.pt", data)
    assert (found["accuracy"], found["data"]["classes_without_images"]) == (1.0, ["a"])
    (data / "junk").mkdir()
    if junk == "images":
        write_image(data / "junk" / "0.png", 3)
    if junk == "text":
        (data / "junk" / "notes.txt").write_text("x")
    assert "junk is none of the network's classes" in refused(tmp_path / "teacher.pt", data)


def test_without_names_a_folder_of_other_files_is_no_class(teacher, tmp_path):
    data = write_classes(tmp_path / "data", [None, *PLAIN[1:]])
    (data / "annotations").mkdir()
    (data / "annotations" / "1.xml").touch()
    assert "the folder annotations has files but no image" in refused(teacher, data)


def test_a_part_of_imagenet_is_matched_by_its_wordnet_ids(tmp_path):
    weights = grey_weights(1000)  # levels above white, except for the first classes
    torch.save(weights, tmp_path / "t.pt")
    found = evaluated(tmp_path / "t.pt", write_classes(tmp_path / "data", [None, None, "n01484850", "n01491361"]))
    assert found["accuracy"] == 1.0
    assert len(found["data"]["classes_without_images"]) == 998


def test_every_format_of_pillow_is_read(teacher, tmp_path):
    found = evaluated(teacher, write_classes(tmp_path, PLAIN, SUFFIXES))
    assert (found["accuracy"], found["images"]) == (1.0, CLASSES * len(SUFFIXES))
    assert found["data"]["passed_over"] == {}


def test_of_an_animation_the_first_frame_is_read(teacher, tmp_path):
    data = write_classes(tmp_path, PLAIN, (".gif",))
    first, second = (Image.new("L", (SIZE, SIZE), level(number)) for number in (1, 0))
    first.save(data / "b" / "0.gif", save_all=True, append_images=[second])
    assert evaluated(teacher, data)["accuracy"] == 1.0


def test_files_that_are_passed_over_are_counted_with_the_reason(teacher, tmp_path):
    data = write_classes(tmp_path / "data", PLAIN)
    # Of these, only the first one is an image of a class. The others would be wrong answers.
    shutil.copy(data / "b" / "0.png", data / "b" / "without-suffix")
    for name in ("a/._0.png", "a/@eaDir/1.png", "a/__MACOSX/1.png", "@eaDir/1.png", ".hidden/1.png", "0.png"):
        write_image(data / name, 5)
    for name in ("a/.DS_Store", "a/Thumbs.db", "a/notes.txt", "b/1.HEIC", "b/2.heic", "b/README"):
        (data / name).write_bytes(b"x")
    found = evaluated(teacher, data)
    assert (found["accuracy"], found["images"]) == (1.0, 2 * CLASSES + 1)
    assert found["data"]["passed_over"] == {
        "hidden or written by the system": 3,
        "in hidden folders or folders of the system": 4,
        "outside the class folders": 1,
        "with .heic, which is no image format of Pillow": 2,
        "with .txt, which is no image format of Pillow": 1,
        "without a suffix and without an image": 1,
    }
    shown = dfkd("evaluate", teacher, "--data", data, *FLAGS)
    assert "files passed over" in shown.stdout
    assert "12 files were passed over (3 hidden" in shown.stderr


def test_unreadable_files_are_skipped_only_when_asked_for(teacher, tmp_path):
    data = write_classes(tmp_path / "data", PLAIN)
    content = write_image(data / "c" / "cut.jpg", 7).read_bytes()
    (data / "c" / "cut.jpg").write_bytes(content[:300])
    (data / "d" / "gone.png").symlink_to("nowhere")
    assert "cut.jpg" in refused(teacher, data)
    found = evaluated(teacher, data, "--skip-unreadable")
    assert (found["accuracy"], found["images"]) == (1.0, 24)
    assert found["data"]["unreadable"] == ["c/cut.jpg", "d/gone.png"]
    shown = dfkd("evaluate", teacher, "--data", data, "--skip-unreadable", *FLAGS)
    assert "2 unreadable image files were skipped: c/cut.jpg, d/gone.png" in shown.stderr
    images = ["evaluate", teacher, "--teacher", teacher, "--images", data, *FLAGS]
    assert dfkd(*images).exit_code == 2
    assert json.loads(dfkd(*images, "--json", "--skip-unreadable").stdout)["data"]["unreadable"] == [
        "c/cut.jpg",
        "d/gone.png",
    ]


def test_a_folder_without_a_readable_file_is_refused(teacher, tmp_path):
    data = write_classes(tmp_path / "data", PLAIN)
    for path in data.rglob("*.png"):
        path.write_bytes(b"no image")
    assert "none of its 24 image files can be read" in refused(teacher, data, "--skip-unreadable")


def make_parts(root: Path, *parts: str) -> None:
    for part in parts:
        write_classes(root / part, ["a", "b"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: make_parts(root, "train", "test"), "did you mean {root}/test?"),
        (lambda root: make_parts(root, "val/val"), "did you mean {root}/val?"),
        (lambda root: make_parts(root, "first", "second"), "all have a, b in them"),
        (lambda root: write_classes(root, ["train", "val"]), "have the names of parts of a data set"),
        (lambda root: write_classes(root, ["a"]), "give --classes FILE"),
        (lambda root: [write_classes(root, ["a", "b"]), (root / "c").mkdir()], "these have no images: c"),
        (lambda root: [write_classes(root, ["a"]), (root / "b").symlink_to("a")], "are the same folder"),
    ],
)
def test_folders_that_are_no_classes_are_refused(two, tmp_path, make, message):
    make(tmp_path / "data")
    assert message.format(root=tmp_path / "data") in refused(two, tmp_path / "data")


def test_links_to_class_folders_are_followed(two, tmp_path):
    write_classes(tmp_path / "elsewhere", ["y", "x"])
    (tmp_path / "data").mkdir()
    for name, target in (("a", "y"), ("b", "x")):
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere" / target)
    assert evaluated(two, tmp_path / "data")["accuracy"] == 1.0


@pytest.mark.parametrize("folders", [["Café", "T-shirt_top"], ["Cafe\u0301", "t-shirt top"], ["CAFÉ", "T-Shirt-Top"]])
def test_spellings_of_a_name_are_one_class(tmp_path, folders):
    torch.save({"state_dict": grey_weights(2), "classes": ["Café", "T-shirt/top"]}, tmp_path / "t.pt")
    assert evaluated(tmp_path / "t.pt", write_classes(tmp_path / "data", folders))["accuracy"] == 1.0


def test_two_spellings_of_one_class_are_refused(tmp_path):
    torch.save({"state_dict": grey_weights(2), "classes": ["cat", "dog"]}, tmp_path / "t.pt")
    data = write_classes(tmp_path / "data", ["Cat", "dog"])
    write_image(data / "CAT" / "0.png", 0)
    assert "CAT, Cat are folders of one class" in refused(tmp_path / "t.pt", data)


@pytest.mark.parametrize("changed", ["none", "junk"])
def test_a_student_states_its_class_names_and_every_evaluation_compares_them(tmp_path, changed):
    size = (1, SIZE, SIZE)
    student = build_student(ARCH, InputSpec(size, (0.0,), (1.0,), CLASSES, class_names=tuple(NUMBERS)))
    student.network.get_submodule("module").load_state_dict(grey_weights())
    (tmp_path / "student").mkdir()
    save_student(student.eval(), tmp_path / "student", None, "hash", "ssd")
    data = write_classes(tmp_path / "data", NUMBERS)
    if changed == "none":
        assert evaluated(tmp_path / "student", data, flags=())["accuracy"] == 1.0
        assert json.loads((tmp_path / "student" / "config.json").read_text())["label_names"] == NUMBERS
    else:
        (data / "3").rename(data / "junk")
        result = dfkd("evaluate", tmp_path / "student", "--data", data)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "junk is none of the network's classes" in result.stderr
