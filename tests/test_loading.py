"""Tests of state dicts and checkpoints: wrappers, architectures, and the source of each value."""

import argparse
import copy

import numpy as np
import pytest
import safetensors.torch
import torch
from loading_helpers import ARCH, MNIST, SIZE, assert_same, create, load

from dfkd_cli.errors import DfkdError, TeacherError, UsageError
from dfkd_cli.loading import LoadOptions
from dfkd_cli.loading.architecture import fitting_arguments
from dfkd_cli.loading.catalogue import plain_module
from dfkd_cli.loading.findings import Findings
from dfkd_cli.narrowing.plan import shrink
from dfkd_cli.networks import EagerNetwork
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.students.from_teacher import student_from_teacher
from dfkd_cli.students.student import save_student


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return create(ARCH).eval()


@pytest.fixture
def weights(module):
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}


WRAPPERS = ["state_dict", "model", "model_state", "model_state_dict", "net"]


class TestStateDicts:
    @pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
    @pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
    def test_wrappers_and_prefixes(self, tmp_path, module, weights, wrapper, prefix):
        weights = {prefix + key: tensor for key, tensor in weights.items()}
        torch.save({wrapper: weights, "epoch": 3} if wrapper else weights, tmp_path / "t.pt")
        assert_same(load(tmp_path / "t.pt", arch=ARCH), module)

    @pytest.mark.parametrize("prefix", ["model.", "net.backbone.", "_fsdp_wrapped_module."])
    def test_the_network_inside_a_training_module(self, tmp_path, module, weights, prefix):
        weights = {prefix + key: tensor for key, tensor in weights.items()} | {"criterion.weight": torch.ones(10)}
        torch.save({"state_dict": weights, "hyper_parameters": {"lr": 0.1}}, tmp_path / "t.ckpt")
        if prefix.startswith("_"):
            weights.pop("criterion.weight")
            torch.save(weights, tmp_path / "t.ckpt")
        assert_same(load(tmp_path / "t.ckpt", arch=ARCH), module)

    def test_layers_wrapped_one_by_one(self, tmp_path, module, weights):
        weights = {key.replace(".", "._fsdp_wrapped_module.", 1): tensor for key, tensor in weights.items()}
        torch.save(weights, tmp_path / "t.pt")
        assert_same(load(tmp_path / "t.pt", arch=ARCH), module)

    def test_numbers_under_the_name_of_averaged_weights_are_not_weights(self, tmp_path, module, weights):
        torch.save({"state_dict": weights, "ema": {"decay": 0.9, "updates": 3}}, tmp_path / "t.pt")
        assert_same(load(tmp_path / "t.pt", arch=ARCH), module)

    @pytest.mark.parametrize("arch", ["tresnet_m", "levit_128s", "repvit_m0_9", "caformer_s18", "resnet18", "test_vit"])
    def test_classes_and_channels_of_every_family(self, arch):
        """Networks whose head is a list or a wrapper, and whose stem receives pixels as channels."""
        with torch.device("meta"):
            weights = create(arch, num_classes=7, in_chans=1).state_dict()
        arguments = fitting_arguments(arch, plain_module(arch).state_dict(), weights, Findings(LoadOptions()))
        assert arguments == {"num_classes": 7, "in_chans": 1}

    def test_nested_wrappers(self, tmp_path, module, weights):
        torch.save({"state_dict": {"model": weights}}, tmp_path / "t.pt")
        assert_same(load(tmp_path / "t.pt", arch=ARCH), module)

    @pytest.mark.parametrize("name", ["t.safetensors", "t.th", "t.tar", "t.jpg", "t"])
    @pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
    def test_content_decides_not_the_extension(self, tmp_path, module, weights, name, form):
        if form == "safetensors":
            safetensors.torch.save_file(weights, tmp_path / name)
        else:
            torch.save(weights, tmp_path / name, _use_new_zipfile_serialization=form == "zip")
        assert_same(load(tmp_path / name, arch=ARCH), module)

    def test_batch_norm_without_counters(self, tmp_path):
        module = create("cifar_resnet8").eval()
        weights = {key: value for key, value in module.state_dict().items() if "num_batches" not in key}
        torch.save(weights, tmp_path / "t.pt")
        assert_same(load(tmp_path / "t.pt", arch="cifar_resnet8"), module)

    def test_sources_of_the_values(self, tmp_path, weights):
        torch.save(weights, tmp_path / "t.pt")
        origin = load(tmp_path / "t.pt", arch=ARCH, std=(0.5,)).origin
        assert origin.kind == "state dict"
        assert origin.arch == ARCH
        assert origin.found == {
            "num_classes": "the head fc2.weight",
            "input_size": f"default of {ARCH}",
            "mean": f"default of {ARCH}",
            "std": "--std",
        }

    def test_sha256_is_of_the_file(self, tmp_path, teachers):
        origin = load(teachers / "resnet20-12fca82f.th", arch="cifar_resnet20").origin
        assert origin.sha256 == "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"

    def test_other_classes_and_channels_need_flags(self, tmp_path):
        module = create(ARCH, num_classes=7, in_chans=3).eval()
        torch.save(module.state_dict(), tmp_path / "t.pt")
        with pytest.raises(UsageError, match=r"input_size \(3, 32, 32\) assumed.*; add --mean M1,M2,... --std"):
            load(tmp_path / "t.pt", arch=ARCH)
        classifier = load(tmp_path / "t.pt", arch=ARCH, input_size=(3, 32, 32), **MNIST)
        assert classifier.spec.num_classes == 7
        assert classifier.spec.mean == (0.1307,) * 3
        assert_same(classifier, module)

    def test_half_precision_weights(self, tmp_path, module, weights):
        torch.save({key: value.half() for key, value in weights.items()}, tmp_path / "t.pt")
        assert load(tmp_path / "t.pt", arch=ARCH)(torch.rand(1, *SIZE)).dtype == torch.float32

    @pytest.mark.parametrize(
        ("file", "arch"), [("resnet56-4bfd9763.th", "cifar_resnet56"), ("kegnet-mnist.pth.tar", "lenet5")]
    )
    def test_third_party_files_need_nothing_but_the_architecture(self, teachers, file, arch):
        classifier = load(teachers / file, arch=arch)
        expected = create(arch).pretrained_cfg
        assert (classifier.spec.size, classifier.spec.mean) == (expected["input_size"], expected["mean"])


class TestMisfits:
    def test_no_architecture_names_the_flag_and_the_closest(self, tmp_path, weights):
        torch.save(weights, tmp_path / "t.pt")
        with pytest.raises(
            UsageError, match=r"--arch NAME \(closest known: lenet5_half.*torch.jit.trace.*torch.jit.save"
        ):
            load(tmp_path / "t.pt")

    def test_wrong_architecture_lists_mismatches_and_the_closest(self, tmp_path, weights):
        torch.save(weights, tmp_path / "t.pt")
        with pytest.raises(
            TeacherError, match=r"conv1.weight is 3x1x5x5 in the file, 6x1x5x5 in the network.*lenet5_half"
        ):
            load(tmp_path / "t.pt", arch="lenet5")

    def test_missing_and_unexpected_keys(self, tmp_path, weights):
        weights["fc3.weight"] = weights.pop("fc1.weight")
        torch.save(weights, tmp_path / "t.pt")
        with pytest.raises(TeacherError, match=r"missing fc1.weight; unexpected fc3.weight"):
            load(tmp_path / "t.pt", arch=ARCH)

    def test_unknown_architecture_names_similar_ones(self, tmp_path, weights):
        torch.save(weights, tmp_path / "t.pt")
        with pytest.raises(UsageError, match=r"did you mean lenet5"):
            load(tmp_path / "t.pt", arch="lenet")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_classes": 5}, "--num-classes says 5 classes, but the head fc2.weight says 10"),
            ({"input_size": (3, 32, 32)}, "--input-size says 3 channels, but the stem conv1.weight says 1"),
            ({"mean": (0.1, 0.2)}, r"--mean gives 2 mean values for 1 channel\(s\); give 1"),
        ],
    )
    def test_flags_that_contradict_the_weights(self, tmp_path, weights, options, message):
        torch.save(weights, tmp_path / "t.pt")
        with pytest.raises(UsageError, match=message):
            load(tmp_path / "t.pt", arch=ARCH, **options)

    def test_a_size_the_network_cannot_take(self, tmp_path, weights):
        torch.save(weights, tmp_path / "t.pt")
        with pytest.raises(TeacherError, match=r"1x8x8"):
            load(tmp_path / "t.pt", arch=ARCH, input_size=(1, 8, 8))


@pytest.mark.parametrize(
    "options", [{"num_classes": 1}, {"input_size": (3, 32)}, {"mean": (float("nan"),)}, {"std": (0.0,)}]
)
def test_flags_out_of_range(options):
    with pytest.raises(UsageError, match=r"^--"):
        LoadOptions(**options)


class TestTimmCheckpoints:
    def test_architecture_and_averaged_weights(self, tmp_path, module, weights):
        raw = {key: torch.zeros_like(value) for key, value in weights.items()}
        checkpoint = {"arch": ARCH, "state_dict": raw, "state_dict_ema": weights, "args": argparse.Namespace(mean=None)}
        torch.save(checkpoint, tmp_path / "t.pth.tar")
        classifier = load(tmp_path / "t.pth.tar")
        assert_same(classifier, module)
        assert classifier.origin.kind == "timm checkpoint"
        assert "EMA" in classifier.origin.notes[0]

    def test_without_averaged_weights(self, tmp_path, module, weights):
        torch.save({"arch": ARCH, "state_dict": weights, "state_dict_ema": None}, tmp_path / "t.pth")
        classifier = load(tmp_path / "t.pth")
        assert_same(classifier, module)
        assert classifier.origin.notes == ()

    @pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.bool_])
    def test_a_number_of_numpy_beside_the_weights(self, tmp_path, module, weights, kind):
        torch.save({"arch": ARCH, "state_dict": weights, "best_acc1": kind(1)}, tmp_path / "t.pth")
        assert_same(load(tmp_path / "t.pth"), module)

    def test_an_object_in_an_array_of_numpy_is_refused(self, tmp_path, weights):
        torch.save({"arch": ARCH, "state_dict": weights, "best": np.array([print], dtype=object)}, tmp_path / "t.pth")
        with pytest.raises(TeacherError, match="pickled Python object"):
            load(tmp_path / "t.pth")

    def test_training_arguments_say_the_normalisation(self, tmp_path, weights):
        args = argparse.Namespace(mean=[0.25], std=[0.75], input_size=None, img_size=32, in_chans=1, num_classes=10)
        torch.save({"arch": ARCH, "state_dict": weights, "args": args}, tmp_path / "t.pth")
        spec = load(tmp_path / "t.pth").spec
        assert (spec.mean, spec.std, spec.size) == ((0.25,), (0.75,), SIZE)

    def test_arguments_of_the_constructor_are_passed_on_and_kept_with_a_student(self, tmp_path):
        module = create("test_resnet", num_classes=4, global_pool="max").eval()
        args = argparse.Namespace(gp="max", bn_eps=None, model_kwargs={}, mean=[0.5] * 3, std=[0.2] * 3, img_size=32)
        torch.save({"arch": "test_resnet", "state_dict": module.state_dict(), "args": args}, tmp_path / "t.pth")
        teacher = load(tmp_path / "t.pth")
        assert_same(teacher, module)
        _, student, plan = student_from_teacher(teacher, 0.5, load_recipe("ssd", []).narrowing)
        shrink(student.eval().network.get_submodule("module"), plan.gone)
        save_student(student, tmp_path, None, "hash", "ssd", narrowed=True)
        assert_same(load(tmp_path / "student.safetensors"), student.network.get_submodule("module"))

    @pytest.mark.parametrize("stated", [{"lr": 0.1}, {"input_size": 32, "mean_of": 1}])
    def test_arguments_of_another_script_say_nothing_about_the_input(self, tmp_path, weights, stated):
        args = argparse.Namespace(**stated)
        torch.save({"arch": ARCH, "state_dict": weights, "args": args}, tmp_path / "t.pth")
        assert load(tmp_path / "t.pth", input_size=SIZE, mean=(0.2,), std=(0.3,)).spec.mean == (0.2,)
        other = create(ARCH, num_classes=4).state_dict()
        torch.save({"arch": ARCH, "state_dict": other, "args": args}, tmp_path / "t.pth")
        with pytest.raises(UsageError, match="add --mean"):
            load(tmp_path / "t.pth")

    def test_trained_on_other_classes_with_the_default_normalisation(self, tmp_path):
        weights = create(ARCH, num_classes=4).state_dict()
        args = argparse.Namespace(mean=None, std=None, num_classes=4)
        torch.save({"arch": ARCH, "state_dict": weights, "args": args}, tmp_path / "t.pth")
        assert load(tmp_path / "t.pth").spec.mean == (0.1307,)


class TestPickledModules:
    def test_the_error_names_the_alternatives(self, tmp_path, module):
        torch.save(module, tmp_path / "t.pt")
        with pytest.raises(TeacherError, match=r"LeNet5.*torch.jit.trace.*--trust-pickle"):
            load(tmp_path / "t.pt", input_size=SIZE, **MNIST)

    @pytest.mark.parametrize("zipped", [True, False])
    def test_loads_when_trusted(self, tmp_path, module, zipped):
        torch.save(module, tmp_path / "t.pt", _use_new_zipfile_serialization=zipped)
        classifier = load(tmp_path / "t.pt", input_size=SIZE, trust_pickle=True, **MNIST)
        assert isinstance(classifier.network, EagerNetwork)
        assert_same(classifier, module)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_of_another_precision_computes_in_single(self, tmp_path, module, dtype):
        torch.save(copy.deepcopy(module).to(dtype), tmp_path / "t.pt")
        classifier = load(tmp_path / "t.pt", input_size=SIZE, trust_pickle=True, **MNIST)
        assert classifier(torch.rand(1, *SIZE)).dtype == torch.float32


def test_every_failure_is_a_dfkd_error(tmp_path):
    torch.save([1, 2], tmp_path / "t.pt")
    with pytest.raises(DfkdError, match=r"contains a list, not a state dict"):
        load(tmp_path / "t.pt", arch=ARCH)
