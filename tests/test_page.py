"""`report.html` loads nothing, shows the values of the report, and escapes every text."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest
import torch
from reports import MEASURED, POOLED, UNMEASURED

from dfkd_cli.evaluation.confusion import Confusion
from dfkd_cli.report.environment import Environment
from dfkd_cli.report.page.curves import read_curves
from dfkd_cli.report.page.disagreement import ALL_CLASSES, WORST_CLASSES
from dfkd_cli.report.page.document import Evidence, render
from dfkd_cli.report.page.plots import draw

LIMIT = 3_000_000  # bytes
VOID = {"meta", "img", "br", "hr", "input", "link", "base", "source", "embed"}


class Page(HTMLParser):
    """The parsed page: elements with their attributes, and the visible text."""

    def __init__(self, html: str):
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def metrics(num_classes: int, count: int = 4) -> list[str]:
    values = {
        "loss": 2.0,
        "kd": 1.5,
        "ce": 0.5,
        "agreement": 0.5,
        "synthesis/bn": 20.0,
        "synthesis/hit_rate": 0.9,
        "buffer/class_shares": [1 / num_classes] * num_classes,
    }
    warmup = [{"phase": "warm-up", "step": 0, "metrics": {"synthesis/bn": 30.0}}]
    training = [{"phase": "training", "step": 10 * i, "metrics": values} for i in range(1, count + 1)]
    return [json.dumps(event) for event in warmup + training]


def evidence(num_classes=3, names=None, size=(3, 8, 8), count=6, images=200, lines=None) -> Evidence:
    rng = torch.Generator().manual_seed(0)
    confusion = Confusion(num_classes)
    teacher = torch.randint(num_classes, (images,), generator=rng)
    student = torch.where(torch.rand(images, generator=rng) < 0.7, teacher, (teacher + 1) % num_classes)
    confusion.add(teacher, student)
    shown, classes = torch.rand(count, *size, generator=rng), torch.randint(num_classes, (count,), generator=rng)
    return Evidence(metrics(num_classes) if lines is None else lines, shown, classes, confusion, names)


def page(report=MEASURED, **kwargs) -> Page:
    return Page(render(report, evidence(**kwargs)))


@pytest.fixture(scope="module")
def measured() -> Page:
    return page(MEASURED)


@pytest.fixture(scope="module")
def pooled() -> Page:
    return page(POOLED)


def test_the_page_loads_nothing(measured):
    assert not {"script", "link", "iframe", "object", "base", "form"} & {name for name, _ in measured.elements}
    for _, attributes in measured.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert str(attributes.get("src", "data:image/")).startswith("data:image/")
        for name in ("href", "xlink:href"):
            assert str(attributes.get(name) or "#").startswith("#")
    assert not re.search(r"https?://|@import|url\((?!#)|//cdn", measured.html)
    (policy,) = [a["content"] for a in measured.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_every_element_is_closed_and_every_name_is_there_once(measured):
    assert measured.open == []
    assert len(measured.ids) == len(set(measured.ids)) > 0
    assert set(re.findall(r"url\(#([^)]*)\)", measured.html)) <= set(measured.ids)


@pytest.mark.parametrize(
    "phrase",
    [
        "cifar_resnet8 distilled from teacher.pt without its training data",
        "Accuracy kept 90.00 % accuracy 81.00 %, teacher 90.00 %",
        "Size 4.0\N{MULTIPLICATION SIGN} smaller: 250 parameters, teacher 1,000",
        "Agreement 87.65 % on evaluation data",
        "Time 1 min 40 s 30 % for making images",
        "file size 5.00 MB 1.25 MB 25.00 %",
        "The teacher's weights came from --arch.",
        "20,000 synthetic images were made; 5,000 were kept at the end.",
        "making images 30 s 30.00 % training the student 1 min 00 s 60.00 %",
        "peak memory 2,000.00 MB",
        "a" * 64,
        "b" * 64,
        "c" * 64,
        "steps 1,234",
        "optimizer muon",
        "seed 7",
        "device cpu, fp32",
        "dfkd compress teacher.pt --recipe ssd --student cifar_resnet8 --out out",
    ],
)
def test_the_page_shows_the_values_of_the_report(measured, phrase):
    assert phrase in measured.text


def test_the_page_shows_the_environment():
    machine = Environment(system="Linux-6", cpu="Fast CPU", threads=3, gpu="Large GPU")
    text = page(dataclasses.replace(MEASURED, environment=machine)).text
    for phrase in ("Fast CPU, 3 threads", "GPU Large GPU", "system Linux-6", f"torch {MEASURED.versions.torch}"):
        assert phrase in text


def test_without_evaluation_data_the_page_shows_no_accuracy():
    text = page(UNMEASURED).text
    assert "Accuracy kept not measured" in text
    assert "accuracy - - -" in text
    assert "200 fresh synthetic images (not a measure of accuracy)" in text


@pytest.mark.parametrize(
    "phrase",
    [
        "the teacher chose 4,000 of them, which selected.csv lists. The page shows 6 of them",
        "30 % for choosing images",
        "choosing images 30 s 30.00 %",
        "pool /data/web",
    ],
)
def test_images_of_a_pool_are_not_called_synthetic(pooled, phrase):
    assert phrase in pooled.text
    assert "synthetic" not in pooled.html


def test_a_teacher_without_parameters_and_a_larger_student_are_shown():
    hidden = dataclasses.replace(MEASURED, teacher=dataclasses.replace(MEASURED.teacher, parameters=0))
    assert "Size - 250 parameters" in page(hidden).text
    small = dataclasses.replace(MEASURED, teacher=dataclasses.replace(MEASURED.teacher, parameters=100))
    assert "Size 2.5\N{MULTIPLICATION SIGN} larger" in page(small).text


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("num_classes", [2, ALL_CLASSES, ALL_CLASSES + 1, 1000])
def test_any_number_of_classes_gives_a_page_of_bounded_size(num_classes, names):
    labels = tuple(f"class-{number}" for number in range(num_classes)) if names else None
    html = render(MEASURED, evidence(num_classes, labels, count=100, images=5000))
    assert len(html.encode()) < LIMIT
    shown = num_classes if num_classes <= ALL_CLASSES else WORST_CLASSES
    (grid,) = re.findall(r'<table class="map.*?</table>', html, re.DOTALL)
    assert grid.count("<tr>") == 1 + shown
    assert ("class-" in html) == names


def test_the_map_holds_the_counts():
    given = evidence(3)
    html = render(MEASURED, given)
    counts = given.confusion.matrix([0, 1, 2])
    for teacher in range(3):
        for student in range(3):
            said = f"teacher {teacher}, student {student}: {counts[teacher][student]} of {sum(counts[teacher])}"
            assert f'title="{said}"' in html


def test_full_agreement_is_stated():
    same = Confusion(3)
    same.add(torch.arange(3), torch.arange(3))
    html = render(MEASURED, dataclasses.replace(evidence(), confusion=same))
    assert "Student and teacher agree on every image." in html


@pytest.mark.parametrize("size", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (4, 65, 65), (3, 224, 224)])
def test_a_hundred_images_of_pure_noise_stay_below_the_limit(size):
    html = render(MEASURED, evidence(10, size=size, count=100))
    assert len(html.encode()) < LIMIT
    assert len(Page(html).named("img")) == 100


def test_images_are_grouped_by_the_class_that_the_teacher_predicts():
    given = dataclasses.replace(evidence(3, ("ant", "bee", "cat")), classes=torch.tensor([2, 0, 2, 2, 0, 0]))
    seen = Page(render(MEASURED, given))
    alts = [image["alt"] for image in seen.named("img")]
    assert alts == ["class 0 ant"] * 3 + ["class 2 cat"] * 3


@pytest.mark.parametrize("lines", [[], ['{"phase": "training", "step": 4, "metrics": {}}']])
def test_a_log_without_terms_gives_a_page_without_curves(lines):
    seen = page(lines=lines)
    assert seen.named("svg") == []
    assert "Training" not in seen.text
    assert "Time and memory" in seen.text


def test_every_logged_quantity_has_its_curve():
    labels = [svg["aria-label"] for svg in page().named("svg")]
    assert [str(label).partition(":")[0] for label in labels] == [
        "loss", "kd", "ce", "agreement", "bn", "hit rate", "class shares",
    ]  # fmt: skip
    assert labels[4] == "bn: 30 at the start, 20 at step 40"


def test_curves_take_their_colours_from_the_page():
    (curve,) = read_curves(['{"phase": "training", "step": 4, "metrics": {"kd": 1.0}}'])
    svg = draw(curve, 1, (0.0, 4.0)).body
    assert "var(--line)" in svg
    assert not re.search(r"#[0-9a-f]{6}", svg)


HOSTILE = "</style></script><script>alert(1)</script><img src=http://x/y onerror=alert(1)>\"'&{$title}"


def test_hostile_text_stays_text():
    report = dataclasses.replace(
        MEASURED,
        teacher=dataclasses.replace(MEASURED.teacher, source=HOSTILE, kind=HOSTILE, arch=HOSTILE),
        student=dataclasses.replace(MEASURED.student, arch=HOSTILE),
        recipe=dataclasses.replace(MEASURED.recipe, name=HOSTILE),
        command=HOSTILE,
        notes=(HOSTILE,),
        environment=Environment(system=HOSTILE, cpu=HOSTILE, threads=1, gpu=HOSTILE),
    )
    lines = [json.dumps({"phase": "training", "step": 1, "metrics": {HOSTILE: 1.0, f"a/{HOSTILE}": 2.0}})]
    seen = page(report, names=(HOSTILE,) * 3, lines=lines)
    plain = page(MEASURED, names=("a", "b", "c"), lines=['{"phase": "training", "step": 1, "metrics": {"a": 1}}'])
    assert {name for name, _ in seen.elements} == {name for name, _ in plain.elements}
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in seen.named("img"))
    assert not any(name.startswith("on") for _, attributes in seen.elements for name in attributes)
    assert seen.text.count(HOSTILE) >= 10
