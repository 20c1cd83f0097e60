import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from tests.cli.conftest import cli  # noqa: F401  a fixture
from tests.helpers import slurm_cluster


@pytest.fixture(scope="session")
def slurm():
    """A Slurm of two cores that all its commands find."""
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    folder = Path(tempfile.gettempdir()) / "genbench-slurm"  # one place, so that what a killed test has left is found
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run has it to itself
        os.environ["SLURM_CONF"] = str(slurm_cluster.start(folder))
        yield folder
        del os.environ["SLURM_CONF"]
        slurm_cluster.stop(folder)
