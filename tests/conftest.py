"""Small and repeatable: one thread, no network, no key, a seed of its own for every test."""

import errno
import os
import tempfile
import warnings
from pathlib import Path

import pytest
import torch

from genbench.cli.quiet import quiet

os.environ |= {"OMP_NUM_THREADS": "1", "WANDB_SILENT": "true", "WANDB_MODE": "offline"}
torch.set_num_threads(1)  # what a file of tests shares is made before `quiet_and_seeded`


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """A file runs in one worker, for what its tests share; the tests over all configs share nothing."""
    for item in items:
        if item.get_closest_marker("xdist_group") or "test_every_model_passes" in item.name:
            continue
        group = "slurm" if "slurm" in item.path.parts else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory):
    os.environ["GENBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def quiet_and_seeded(monkeypatch):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in ("PL_GLOBAL_SEED", "GENBENCH_RUN"):
        monkeypatch.delenv(name, raising=False)
    with warnings.catch_warnings():
        quiet()
        warnings.simplefilter("ignore")
        yield
    for name in ("PL_GLOBAL_SEED", "GENBENCH_RUN"):
        os.environ.pop(name, None)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The system's temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def full(monkeypatch):
    """Makes the disk of some folders full: nothing that lies in them can be brought to it."""
    real = os.fsync

    def fill(*folders):
        def fsync(handle):
            path = os.readlink(f"/proc/self/fd/{handle}")
            if any(path.startswith(f"{Path(folder).absolute()}/") for folder in folders):
                raise OSError(errno.ENOSPC, "No space left on device")
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)

    return fill
