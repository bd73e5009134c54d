"""Selection from a pool: which images, in which time and memory, and its notes."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from dfkd_cli.config.values import OutOfBoundsError
from dfkd_cli.errors import RecipeMismatchError, UsageError
from dfkd_cli.machine.runtime import Runtime
from dfkd_cli.networks import EagerNetwork
from dfkd_cli.networks.classifier import Classifier, InputSpec, Origin
from dfkd_cli.pool.selected import Selected
from dfkd_cli.pool.selection import Selection, SelectionConfig
from dfkd_cli.training.augmentation import Augmentation
from dfkd_cli.training.setting import Setting

BATCH, CLASSES = 4, 3
CONFIG = SelectionConfig("confidence", keep=10, class_cap=1.5, cache_mb=1, reading_share=0.5)


class Bare(nn.Module):
    """A network without BatchNorm layers and without a visible linear layer."""

    def forward(self, images):
        return 30 * images[:, 0, 0, :CLASSES]


def make_setting(module: nn.Module | None = None, size: tuple[int, int, int] = (1, 8, 8)) -> Setting:
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    module = module or nn.Sequential(*layers, nn.Linear(24, CLASSES))
    spec = InputSpec(size, mean=(0.5,), std=(0.1,), num_classes=CLASSES)
    teacher = Classifier(EagerNetwork(module, input_size=size), spec, Origin("test", "test", None, None)).eval()
    return Setting(
        teacher,
        teacher,
        batch_size=BATCH,
        augmentation=Augmentation(flip=False, shift=0.0, mix=0.0, cut=0.0),
        runtime=Runtime(torch.device("cpu")),
        rng=torch.Generator().manual_seed(0),
    )


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    """50 images of noise in five folders."""
    folder = tmp_path_factory.mktemp("pool")
    pixels = torch.randint(256, (50, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for number, image in enumerate(pixels):
        (folder / f"class{number % 5}").mkdir(exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"class{number % 5}" / f"{number:02}.png")
    return folder


def choose(pool: Path, setting: Setting | None = None, **changes) -> Selected:
    selection = Selection(setting or make_setting(), replace(CONFIG, **changes), pool)
    while (selected := selection.advance(in_time=True)) is None:
        pass
    return selected


def test_the_most_confident_images_within_the_class_cap_are_chosen(pool):
    setting = make_setting()
    confidences: dict[int, list[tuple[float, str]]] = {number: [] for number in range(CLASSES)}
    for path in sorted(pool.rglob("*.png")):
        image = torch.tensor(list(Image.open(path).tobytes())).view(1, 1, 8, 8) / 255
        confidence, number = setting.teacher(image).softmax(1).max(1)
        confidences[int(number)].append((confidence.item(), path.relative_to(pool).as_posix()))
    capped = [pair for pairs in confidences.values() for pair in sorted(pairs, reverse=True)[:5]]  # 1.5 * 10 / 3
    over = [pair for pairs in confidences.values() for pair in sorted(pairs, reverse=True)[5:]]
    expected = (sorted(capped, reverse=True) + sorted(over, reverse=True))[:10]
    assert 5 < len(capped) < 10, "the cap matters, and so does filling up"
    selected = choose(pool)
    assert selected.files == sorted(name for _, name in expected)
    assert sorted(selected.scores) == pytest.approx(sorted(confidence for confidence, _ in expected))
    assert selected.seen == 50
    assert len(selected.next_best) == 16


def test_an_image_is_kept_as_it_is_in_its_file(pool):
    selected = choose(pool)
    for file, image in zip(selected.files, selected.read(selected.chosen), strict=True):
        assert image.mul(255).round().byte().flatten().tolist() == list(Image.open(pool / file).tobytes())


def test_names_of_folders_and_files_are_not_read(pool, tmp_path):
    for path in pool.rglob("*.png"):
        shutil.copy(path, tmp_path / f"{path.stem[::-1]}.png")
    trees = [choose(folder) for folder in (pool, tmp_path)]
    contents = [{bytes(image.flatten().tolist()) for image in chosen.images[chosen.chosen]} for chosen in trees]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("score", ["confidence", "entropy", "bn", "prototype", "random"])
def test_every_score_chooses_and_most_choose_differently(pool, score):
    selected = choose(pool, score=score, class_cap=3.0)
    assert len(set(selected.files)) == len(selected.chosen) == 10
    assert len(set(selected.next_best.tolist()) & set(selected.chosen.tolist())) == 0
    if score in ("bn", "prototype", "random"):
        assert selected.files != choose(pool, class_cap=3.0).files


@pytest.mark.parametrize("score", ["bn", "prototype"])
def test_a_score_that_the_teacher_does_not_support_is_named(pool, score):
    with pytest.raises(RecipeMismatchError, match=rf"score={score} needs .* use confidence"):
        choose(pool, make_setting(Bare()), score=score)


def test_a_small_pool_is_chosen_whole_and_nothing_fresh_is_left(pool):
    selected = choose(pool, keep=1000)
    assert len(selected.chosen) == 50
    assert len(selected.next_best) == 0
    assert "none remains" in selected.notes()[0]
    assert len(selected.unseen(60)) == 0


def test_a_few_images_that_are_left_are_fresh(pool):
    selected = choose(pool, keep=45)
    assert len(selected.unseen(60)) == 5
    assert "none remains" not in selected.notes()[0]


@pytest.mark.parametrize(("counts", "rare"), [((8, 8, 8), 0), ((20, 3, 1), 0), ((39, 1, 0), 2), ((24, 0, 0), 2)])
def test_classes_that_the_teacher_rarely_predicts_are_noted(pool, counts, rare):
    classes = [number for number, count in enumerate(counts) for _ in range(count)]
    selected = replace(choose(pool), classes=classes, num_classes=len(counts))
    warnings = selected.notes()[1:]
    assert len(warnings) == (rare > 0)
    assert all(f"predicts {rare} of its 3 classes for almost no image" in warning for warning in warnings)


def test_out_of_time_the_images_read_so_far_are_selected_from_and_a_note_says_so(pool):
    selection = Selection(make_setting(), CONFIG, pool)
    assert selection.advance(in_time=False) is None, "one chunk is read whatever the time"
    selected = selection.advance(in_time=False)
    assert selected is not None
    assert selected.seen == len(selected.files) == BATCH
    assert not selected.complete
    assert "only partly" in selected.notes()[0]


@pytest.mark.parametrize("score", ["confidence", "prototype"])
def test_a_pass_that_is_over_stays_as_it_ended(pool, score):
    """A run that restarts after a diverged loss asks for the selection again."""
    selection = Selection(make_setting(), replace(CONFIG, score=score), pool)
    while (selected := selection.advance(in_time=True)) is None:
        pass
    assert selection.advance(in_time=False) is selected


def test_reading_leaves_a_budget_for_the_student():
    with pytest.raises(OutOfBoundsError, match="reading_share"):
        replace(CONFIG, reading_share=1.0)


def test_unreadable_files_are_counted_and_a_pool_of_them_is_refused(pool, tmp_path):
    shutil.copytree(pool, tmp_path / "pool")
    (tmp_path / "pool" / "broken.png").write_bytes(b"broken")
    selected = choose(tmp_path / "pool")
    assert (selected.seen, selected.unreadable) == (50, 1)
    assert "1 unreadable skipped" in selected.notes()[0]
    for path in (tmp_path / "pool").rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(UsageError, match="none of its 51 image files"):
        choose(tmp_path / "pool")


@pytest.mark.parametrize("score", ["confidence", "prototype", "random"])
def test_a_pool_with_copies_is_chosen_from_as_if_there_were_none(pool, tmp_path, score):
    """Three copies of each image. The names put the original first; the file system decides which is found first."""
    shutil.copytree(pool, tmp_path / "pool")
    for number, path in enumerate(sorted((tmp_path / "pool").rglob("*.png")) * 3):
        shutil.copy(path, path.with_name(f"{path.stem}_copy_{number}.png"))
    alone, among_copies = choose(pool, score=score), choose(tmp_path / "pool", score=score)
    assert among_copies.files == alone.files
    assert (among_copies.seen, among_copies.copies, alone.copies) == (200, 150, 0)
    assert "150 copies skipped" in among_copies.notes()[0]
    held = among_copies.images[torch.cat([among_copies.chosen, among_copies.next_best])]
    assert len({bytes(image.flatten().tolist()) for image in held}) == len(held), "agreement is measured on others"


def test_the_teacher_scores_whole_batches_without_copies(pool, tmp_path, monkeypatch):
    for number, path in enumerate([*pool.rglob("*.png")] * 3):
        shutil.copy(path, tmp_path / f"{number}.png")
    score, sizes = Selection._score, []
    monkeypatch.setattr(Selection, "_score", lambda self, images: sizes.append(len(images)) or score(self, images))
    choose(tmp_path)
    assert sizes == [BATCH] * 12 + [2]


def test_memory_bounds_what_is_kept(pool):
    """1 MiB is 64 images of 1x128x128, less a spare quarter, an incoming batch and four batches for the agreement."""
    selection = Selection(make_setting(size=(1, 128, 128)), replace(CONFIG, keep=9999), pool)
    assert selection.candidates.images.nbytes <= 2**20
    assert selection.keep == 48 - 4 * BATCH
    with pytest.raises(UsageError, match="cache_mb=1 holds only 4 images"):
        Selection(make_setting(size=(1, 512, 512)), CONFIG, pool)


def test_the_table_of_the_selection_can_be_read_back(pool):
    selected = choose(pool)
    header, *lines = selected.to_csv().splitlines()
    assert header == "file,pseudo_class,score"
    assert [line.split(",")[0] for line in lines] == selected.files
    assert [int(line.split(",")[1]) for line in lines] == selected.classes
    assert [float(line.split(",")[2]) for line in lines] == pytest.approx(selected.scores, rel=1e-5)


def test_a_restored_selection_draws_the_same_images(pool):
    selected = choose(pool)
    restored = Selected.from_state(selected.state_dict(), torch.device("cpu"))
    assert len(restored.images) == 26, "only what is in use"
    draws = [chosen.draw(20, torch.Generator().manual_seed(1)) for chosen in (selected, restored)]
    assert torch.equal(*draws)
    assert torch.equal(selected.unseen(5), restored.unseen(5))
    assert restored.to_csv() == selected.to_csv()


def test_drawing_reaches_every_chosen_image_and_no_other(pool):
    selected = choose(pool)
    drawn = selected.draw(500, torch.Generator().manual_seed(0))
    seen = {bytes(image.mul(255).round().byte().flatten().tolist()) for image in drawn}
    assert seen == {bytes(image.flatten().tolist()) for image in selected.images[selected.chosen]}
