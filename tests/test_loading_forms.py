"""Tests of archives, students, folders and names: identification by content, and the source of each value."""

import json
import shutil

import pytest
import safetensors.torch
import timm
import torch
from loading_helpers import ARCH, MNIST, SIZE, assert_same, create, export, load, script
from torch import nn

from dfkd_cli.errors import DfkdError, TeacherError, UsageError
from dfkd_cli.networks import ExportedNetwork, ScriptNetwork


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return create(ARCH).eval()


@pytest.fixture
def weights(module):
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}


class TestArchives:
    @pytest.mark.parametrize(("save", "network"), [(script, ScriptNetwork), (export, ExportedNetwork)])
    @pytest.mark.parametrize("name", ["t.pt", "t.pt2", "t.zip"])
    def test_loads_with_flags(self, tmp_path, module, save, network, name):
        path = save(module, tmp_path / name).rename(tmp_path / "renamed")
        classifier = load(path, input_size=SIZE, **MNIST)
        assert isinstance(classifier.network, network)
        assert classifier.origin.found["num_classes"] == "the forward on noise"
        assert_same(classifier, module)

    def test_script_without_flags_names_those_that_its_weights_do_not_show(self, tmp_path, module):
        with pytest.raises(
            UsageError, match=r"input_size \(1, 32, 32\) from trial.*; add --mean M1,M2,... --std S1,S2"
        ):
            load(script(module, tmp_path / "t.pt"))

    def test_statistics_of_images_up_to_255_are_refused_with_the_divided_values(self, tmp_path, module):
        with pytest.raises(UsageError, match=r"--mean is 73: images are in \[0, 1\].*--mean 0.2863$"):
            load(script(module, tmp_path / "t.pt"), input_size=SIZE, mean=(73.0,), std=(90.0,))

    def test_an_export_contains_its_size(self, tmp_path, module):
        path = export(module, tmp_path / "t.pt2")
        with pytest.raises(UsageError, match=r"add --mean M1,M2,... --std S1,S2,...$"):
            load(path)
        classifier = load(path, **MNIST)
        assert classifier.spec.size == SIZE
        assert classifier.origin.found["input_size"] == "the exported graph's input"

    @pytest.mark.parametrize("save", [script, export])
    @pytest.mark.parametrize("name", ["dfkd.json", "config.json"])
    @pytest.mark.parametrize("nested", [False, True])
    def test_extra_files_describe_the_input(self, tmp_path, module, save, name, nested):
        facts = {"input_size": SIZE, "mean": [0.1], "std": [0.2]}
        path = save(
            module, tmp_path / "t.pt2", extra={name: json.dumps({"pretrained_cfg": facts} if nested else facts)}
        )
        classifier = load(path)
        assert (classifier.spec.mean, classifier.spec.std) == ((0.1,), (0.2,))
        assert classifier.origin.found["mean"] == f"{name} in the archive"

    @pytest.mark.parametrize("found", [{"pretrained_cfg": "x"}, {"mean": "imagenet"}, {"input_size": 8}])
    def test_flags_override_invalid_extra_files(self, tmp_path, module, found):
        path = script(module, tmp_path / "t.pt", extra={"config.json": json.dumps(found)})
        assert load(path, input_size=SIZE, **MNIST).spec.size == SIZE

    @pytest.mark.parametrize("save", [script, export])
    @pytest.mark.parametrize(
        ("options", "source"), [({"num_classes": 7}, "--num-classes"), ({"input_size": (3, 32, 32)}, "--input-size")]
    )
    def test_flags_that_contradict_the_archive(self, tmp_path, module, save, options, source):
        with pytest.raises(DfkdError, match=source):
            load(save(module, tmp_path / "t.pt2"), **({"input_size": SIZE} | MNIST | options))

    def test_an_ignored_arch_is_noted(self, tmp_path, module):
        notes = load(script(module, tmp_path / "t.pt"), arch="resnet18", input_size=SIZE, **MNIST).origin.notes
        assert any("--arch resnet18 is ignored" in note for note in notes)

    def test_only_batches_of_images(self, tmp_path):
        path = export(nn.Linear(8, 3), tmp_path / "t.pt2", size=(8,))
        with pytest.raises(TeacherError, match=r"batch of images"):
            load(path, **MNIST)

    def test_nothing_reaches_the_terminal(self, tmp_path, module, capfd):
        load(script(module, tmp_path / "t.pt"), input_size=SIZE, **MNIST)
        load(export(module, tmp_path / "t.pt2"), **MNIST)
        assert capfd.readouterr() == ("", "")


class TestStudents:
    FACTS = {  # noqa: RUF012
        "arch": ARCH,
        "num_classes": 10,
        "input_size": [1, 32, 32],
        "mean": [0.3],
        "std": [0.6],
        "version": "0",
        "teacher_sha256": None,
        "recipe_sha256": "",
    }

    def test_loads_without_flags(self, tmp_path, module, weights):
        safetensors.torch.save_file(weights, tmp_path / "s.safetensors", {"dfkd": json.dumps(self.FACTS)})
        classifier = load(tmp_path / "s.safetensors")
        assert_same(classifier, module)
        assert classifier.spec.mean == (0.3,)
        assert classifier.origin.kind == "dfkd student"
        assert classifier.origin.found["mean"] == "the dfkd student's metadata"

    def test_metadata_that_contradicts_the_weights(self, tmp_path, weights):
        facts = json.dumps(self.FACTS | {"num_classes": 12})
        safetensors.torch.save_file(weights, tmp_path / "s.safetensors", {"dfkd": facts})
        with pytest.raises(TeacherError, match=r"metadata says 12 classes, but the head fc2.weight says 10"):
            load(tmp_path / "s.safetensors")


class TestFolders:
    @staticmethod
    def write(folder, weights, name="model.safetensors", **extra):
        cfg = {"input_size": [1, 32, 32], "mean": [0.4], "std": [0.8], "num_classes": 10}
        config = {"architecture": ARCH, "num_classes": 10, "pretrained_cfg": cfg} | extra
        (folder / "config.json").write_text(json.dumps(config))
        if name.endswith(".safetensors"):
            safetensors.torch.save_file(weights, folder / name)
        else:
            torch.save(weights, folder / name)

    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "something.safetensors"])
    @pytest.mark.parametrize("prefix", ["", "local-dir:"])
    def test_hub_layout(self, tmp_path, module, weights, name, prefix):
        self.write(tmp_path, weights, name)
        classifier = load(f"{prefix}{tmp_path}")
        assert_same(classifier, module)
        assert classifier.spec.std == (0.8,)
        assert classifier.origin.kind == "hub folder"

    def test_a_model_saved_by_timm(self, tmp_path):
        module = create("resnet10t", num_classes=3).eval()
        timm.models.save_for_hf(module, tmp_path, safe_serialization=True)
        assert_same(load(tmp_path, input_size=(3, 64, 64)), module)

    def test_flags_cannot_replace_the_head(self, tmp_path, weights):
        self.write(tmp_path, weights)
        with pytest.raises(UsageError, match=r"--num-classes says 3"):
            load(tmp_path, num_classes=3)

    def test_config_that_contradicts_the_weights(self, tmp_path, weights):
        self.write(tmp_path, weights, num_classes=4)
        with pytest.raises(TeacherError, match=r"config.json says 4 classes, but the head fc2.weight says 10"):
            load(tmp_path)

    def test_weights_of_another_network(self, tmp_path):
        self.write(tmp_path, create("lenet5").state_dict())
        with pytest.raises(TeacherError, match=r"lenet5_half"):
            load(tmp_path)


class TestNames:
    def test_timm_name_without_pretrained_weights(self):
        with pytest.raises(TeacherError, match=r"no weights for lenet5"):
            load("timm:lenet5")

    @pytest.mark.parametrize("source", ["timm:lenet5", "lenet5"])
    def test_random_weights_are_noted(self, source):
        classifier = load(source, pretrained=False)
        assert "random" in classifier.origin.notes[0]
        assert classifier.spec.size == SIZE

    def test_published_weights(self, monkeypatch):
        module = create("resnet18")
        monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: module)
        classifier = load("timm:resnet18")
        assert classifier.spec.num_classes == 1000
        assert classifier.origin.found["mean"] == "timm's configuration of resnet18"

    def test_failed_download_is_one_line(self, monkeypatch):
        def fail(*args, **kwargs):
            raise OSError("no network\nand more")

        monkeypatch.setattr(timm, "create_model", fail)
        with pytest.raises(TeacherError, match=r"^timm:resnet18 cannot be loaded: no network$"):
            load("timm:resnet18")

    @pytest.mark.parametrize(
        ("held", "fetched"),
        [
            (("model.safetensors", "pytorch_model.bin"), "model.safetensors"),
            (("student.safetensors",), "student.safetensors"),
            (("pytorch_model.bin",), "pytorch_model.bin"),
        ],
    )
    def test_hub_repository(self, monkeypatch, tmp_path, module, weights, held, fetched):
        remote, local = tmp_path / "remote", tmp_path / "local"
        remote.mkdir()
        for name in held:
            TestFolders.write(remote, weights, name)

        def download(repository, revision, allow_patterns):
            assert (repository, revision) == ("somebody/something", "v1")
            local.mkdir(exist_ok=True)
            for path in remote.iterdir():
                if any(path.match(pattern) for pattern in allow_patterns):
                    shutil.copy(path, local)
            return str(local)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        assert_same(load("hf-hub:somebody/something@v1"), module)
        assert {path.name for path in local.iterdir()} == {"config.json", fetched}

    @pytest.mark.parametrize("source", ["timm:resnet18.a1_in1", "weights.pt"])
    def test_an_unknown_tag(self, tmp_path, monkeypatch, weights, source):
        monkeypatch.chdir(tmp_path)
        torch.save(weights, "weights.pt")
        with pytest.raises(UsageError, match=r"'a1_in1' for resnet18; did you mean resnet18\.a1_in1k"):
            load(source, arch=None if source.startswith("timm") else "resnet18.a1_in1")

    @pytest.mark.parametrize("source", ["missing.pt", "some/where", "resnt18", "timm:resnt18"])
    def test_neither_file_nor_name(self, source):
        with pytest.raises(UsageError, match=r"exist|no file"):
            load(source)
