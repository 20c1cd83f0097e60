"""A checkpoint is there whole or not at all, and is loaded safely."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy import SPEC, ToyGAN, fit

import genbench
from genbench.core import checkpoint
from genbench.core.errors import UserError


@pytest.fixture
def trained(tmp_path):
    module = ToyGAN(SPEC)
    fit(module, images=16).save_checkpoint(tmp_path / "toy.ckpt", weights_only=False)
    return module, tmp_path / "toy.ckpt"


def test_a_disk_that_is_full_leaves_the_last_good_checkpoint_and_says_so(tmp_path):
    # a real failing write: no file of this process may grow past 4 kB
    script = f"""
import resource, torch
from pathlib import Path
from genbench.core.checkpoint import AtomicCheckpointIO
path = Path({str(tmp_path)!r}) / "last.ckpt"
AtomicCheckpointIO().save_checkpoint({{"x": 1}}, path)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    AtomicCheckpointIO().save_checkpoint({{"x": torch.zeros(100000)}}, path)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UserError The checkpoint") and "is intact" in done.stdout, done
    assert torch.load(tmp_path / "last.ckpt") == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_alone_rebuilds_the_model_also_through_lightning(trained):
    module, path = trained
    for again in (genbench.load(path), ToyGAN.load_from_checkpoint(path, weights_only=True)):
        assert type(again) is ToyGAN and again.spec == SPEC
        assert all(torch.equal(p, module.get_parameter(n)) for n, p in again.named_parameters())
    assert genbench.load(path).images_seen == 16 and not genbench.load(path).training


def test_a_checkpoint_works_from_another_folder(trained, tmp_path):
    module, path = trained
    other = tmp_path / "elsewhere" / "renamed.ckpt"
    other.parent.mkdir()
    path.rename(other)
    assert isinstance(genbench.load(other), ToyGAN)


def test_a_checkpoint_imports_nothing_by_itself(trained):
    _, path = trained
    script = f"import genbench; genbench.load({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode and "is not loaded" in done.stderr and "--import toy" in done.stderr


@pytest.mark.parametrize("kept", [0, 10, 3000])
def test_a_truncated_checkpoint_is_named(trained, kept):
    _, path = trained
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="toy.ckpt is damaged"):
        checkpoint.read(path)


def test_a_pickle_from_a_stranger_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was_run",))

    torch.save({"genbench": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="holds more than tensors and plain values"):
        checkpoint.read(tmp_path / "evil.ckpt")
    assert not (tmp_path / "was_run").exists()


def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="is not a checkpoint of genbench"):
        checkpoint.read(tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="There is no checkpoint at"):
        checkpoint.read(tmp_path / "none.ckpt")
