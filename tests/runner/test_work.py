"""One run of a suite in a process of its own."""

import os

import pytest

from genbench.runner import work


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory: MemoryError"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (OSError(28, "No space left on device"), "the disk is full"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "out of memory"),
    ],
)
def test_the_reason_names_memory_or_disk(error, reason, capfd):
    assert work._reason(error).startswith(reason)


def test_a_run_without_last_ckpt_is_resumed_from_its_newest_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    assert work._last_checkpoint(tmp_path) == folder / "last.ckpt"
    folder.mkdir()
    for k, name in enumerate(("best.ckpt", "0000000800.ckpt", "0000000400.ckpt")):
        (folder / name).touch()
        os.utime(folder / name, (100 - k, 100 - k))
    assert work._last_checkpoint(tmp_path) == folder / "best.ckpt"
    (folder / "last.ckpt").touch()
    os.utime(folder / "last.ckpt", (1, 1))
    assert work._last_checkpoint(tmp_path) == folder / "last.ckpt"
