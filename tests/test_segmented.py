"""Evaluation of segmentation networks: images with masks, and scores against their definitions."""

import json

import numpy as np
import pytest
import torch
from command_line import dfkd
from loading_helpers import script
from PIL import Image
from segmentation_networks import CLASSES, SIZE, make_fcn, save_scenes, segmenter

from dfkd_cli.data.segmented import MaskOptions, open_segmented
from dfkd_cli.errors import UsageError
from dfkd_cli.evaluation.confusion import PixelConfusion
from dfkd_cli.evaluation.segmentation import measure_segmentation
from dfkd_cli.evaluation.segmentation_scores import class_ious, scores

FLAGS = ("--input-size", "3x16x24", "--mean", "0.4", "--std", "0.3")


class TestScores:
    def test_golden_confusion_matrix(self):
        # Class 2 is absent from the masks: its IoU is left out, its false positives count against the others.
        matrix = torch.tensor([[5, 1, 2, 0], [2, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]])
        found = scores(matrix)
        assert class_ious(matrix).tolist() == pytest.approx([5 / 10, 3 / 6, 0.0, 1.0])
        assert found.miou == pytest.approx((0.5 + 0.5 + 1.0) / 3)
        assert found.pixel_accuracy == pytest.approx(12 / 17)
        assert found.class_accuracy == pytest.approx((5 / 8 + 3 / 5 + 1.0) / 3)

    def test_counts_of_pixels_are_those_of_pairs(self):
        confusion = PixelConfusion(3)
        confusion.add(torch.tensor([[0, 0], [2, 1]]), torch.tensor([[0, 1], [2, 1]]))
        confusion.add(torch.tensor([0]), torch.tensor([1]))
        assert confusion.counts() == {(0, 0): 1, (0, 1): 2, (1, 1): 1, (2, 2): 1}
        assert confusion.differences() == [(0, 1, 2)]

    def test_scores_are_those_of_all_counted_pixels(self, tmp_path):
        """The logits are resized to masks of other sizes, and ignored pixels are left out."""
        network, teacher = segmenter(seed=0), segmenter(seed=1)
        data = open_segmented(str(save_scenes(tmp_path, 3, (20, 33))), network.spec, MaskOptions((3,)))
        measured = measure_segmentation(network, data, torch.device("cpu"), teacher, batch_size=2)
        table = torch.zeros(CLASSES, CLASSES, dtype=torch.long)
        agreeing = pixels = 0
        for images, masks in data.batches(1, network.spec):
            enlarged = [
                torch.nn.functional.interpolate(each(images), (20, 33), mode="bilinear", align_corners=False)
                for each in (network, teacher)
            ]
            own, of_teacher = (logits.argmax(dim=1)[0] for logits in enlarged)
            for mask, predicted, other in zip(masks[0].view(-1), own.view(-1), of_teacher.view(-1), strict=True):
                if mask >= 0:
                    table[mask, predicted] += 1
                    agreeing += int(predicted == other)
                    pixels += 1
        assert measured.pixels == pixels == int(table.sum())
        assert measured.student == scores(table)
        assert measured.agreement == pytest.approx(agreeing / pixels)
        assert measured.classes[3].iou is None
        assert measured.classes[3].pixels == 0


class TestFiles:
    def open(self, folder, **options):
        data = open_segmented(str(folder), segmenter().spec, MaskOptions(**options))
        return list(data.batches(4, segmenter().spec))

    def test_an_image_without_a_mask_is_named(self, tmp_path):
        save_scenes(tmp_path, 2, (16, 24))
        (tmp_path / "masks" / "1.png").unlink()
        with pytest.raises(UsageError, match=r"images/1.png has no mask"):
            self.open(tmp_path)

    def test_an_rgb_mask_is_named(self, tmp_path):
        save_scenes(tmp_path, 2, (16, 24))
        Image.new("RGB", (24, 16)).save(tmp_path / "masks" / "1.png")
        with pytest.raises(UsageError, match=r"masks/1.png is an image of colour mode RGB"):
            self.open(tmp_path)

    def test_a_class_out_of_range_is_named_and_can_be_ignored(self, tmp_path):
        save_scenes(tmp_path, 1, (16, 24), values=(0, 9, 255))
        with pytest.raises(UsageError, match=r"masks/0.png has the value 9.*--ignore-index 9"):
            self.open(tmp_path)
        ((_, masks),) = self.open(tmp_path, ignored=(9,))
        assert masks[0].unique().tolist() == [-1, 0]

    def test_a_mask_of_another_size_is_named(self, tmp_path):
        save_scenes(tmp_path, 1, (16, 24))
        Image.new("L", (24, 15)).save(tmp_path / "masks" / "0.png")
        with pytest.raises(UsageError, match=r"masks/0.png has 24x15 pixels, its image 0.png has 24x16"):
            self.open(tmp_path)

    def test_a_palette_mask_holds_the_places_of_its_colours(self, tmp_path):
        save_scenes(tmp_path, 1, (16, 24))
        mask = Image.fromarray(np.arange(16 * 24, dtype=np.uint8).reshape(16, 24) % CLASSES)
        mask.putpalette([value for number in range(256) for value in (number, 0, 255 - number)])
        mask.save(tmp_path / "masks" / "0.png")
        ((_, masks),) = self.open(tmp_path)
        assert torch.equal(masks[0], torch.arange(16 * 24).view(16, 24) % CLASSES)

    def test_cityscapes_ids_become_train_ids(self, tmp_path):
        from torchvision.datasets import Cityscapes

        image, mask = (tmp_path / kind / "val" / "ulm" for kind in ("leftImg8bit", "gtFine"))
        for folder in (image, mask):
            folder.mkdir(parents=True)
        Image.new("RGB", (24, 16)).save(image / "ulm_0_leftImg8bit.png")
        values = np.zeros((16, 24), np.uint8)
        values[0, :2] = [7, 33]  # road and bicycle
        Image.fromarray(values).save(mask / "ulm_0_gtFine_labelIds.png")
        for name in ("instanceIds.png", "color.png", "polygons.json"):
            (mask / f"ulm_0_gtFine_{name}").touch()
        spec = segmenter().spec
        data = open_segmented(f"cityscapes:{tmp_path}", type(spec)(SIZE, (0.4,) * 3, (0.3,) * 3, 19), MaskOptions())
        ((_, masks),) = data.batches(1, spec)
        assert masks[0][0, :3].tolist() == [0, 18, -1]
        assert data.class_names[0] == next(known.name for known in Cityscapes.classes if known.train_id == 0)


class TestCommand:
    @pytest.fixture
    def teacher(self, tmp_path):
        return script(make_fcn(), tmp_path / "teacher.pt", SIZE)

    def test_evaluates_and_gates(self, tmp_path, teacher):
        scenes = save_scenes(tmp_path / "scenes", 3, (16, 24))
        names = tmp_path / "names.txt"
        names.write_text("sky\nroad\ncar\nvoid\n")
        arguments = ["evaluate", teacher, "--data", scenes, "--teacher", teacher, "--class-names", names, *FLAGS]
        result = dfkd(*arguments, "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert (found["task"], found["agreement"], found["relative_miou"]) == ("segmentation", 1.0, 1.0)
        assert [each["name"] for each in found["classes"]] == ["sky", "road", "car", "void"]
        assert "mean IoU" in dfkd(*arguments).stdout
        assert dfkd(*arguments, "--min-miou", "0.99").exit_code == 5
        assert dfkd(*arguments, "--max-drop", "0").exit_code == 0
        assert dfkd(*arguments, "--min-accuracy", "0.1").exit_code == 2
