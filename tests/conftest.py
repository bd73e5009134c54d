"""Fixtures of all tests: one thread per test, and the real data of ../shared/data, unpacked once per session."""

import os
import tarfile
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests that take more than a minute")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a minute on one core; runs with --slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real data: $DFKD_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("DFKD_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "teachers").is_dir():
        pytest.skip(f"no real data at {folder}; set DFKD_DATA to the folder that holds teachers/")
    return folder


@pytest.fixture(scope="session")
def teachers(data: Path) -> Path:
    """Return the folder of third-party checkpoints."""
    return data / "teachers"


@pytest.fixture(scope="session")
def unpack(data: Path, tmp_path_factory: pytest.TempPathFactory):
    """Return a function that unpacks a data archive into a folder of this session and returns the folder."""

    def unpack(archive: str) -> Path:
        path = data / archive
        if not path.exists():
            pytest.skip(f"no {archive} in {data}")
        folder = tmp_path_factory.mktemp("data")
        with tarfile.open(path) as file:
            file.extractall(folder, filter="data")
        return folder

    return unpack


@pytest.fixture(scope="session")
def cifar10_test(unpack) -> Path:
    """Return the folder of CIFAR-10's 10,000 test images, lossless, one subfolder per class."""
    return unpack("cifar10-test.tar.xz") / "cifar10" / "test"


@pytest.fixture(scope="session")
def cifar100_pool(unpack) -> Path:
    """Return the folder of a fifth of CIFAR-100's training images: an unlabelled pool for CIFAR-10."""
    return unpack("cifar100-train-subset.tar.xz") / "cifar100" / "train"


@pytest.fixture(scope="session")
def mnist_root(unpack) -> Path:
    """Return the root for torchvision.datasets.MNIST."""
    return unpack("mnist.tar.xz")
