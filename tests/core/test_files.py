"""Files are written atomically, and temporary files of killed processes are removed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genbench.core import files
from genbench.core.errors import UserError
from genbench.core.files import NotWritten, create, find_checkpoint, ordinary, remove_orphans, replacing, write


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"good")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half of a ne")
        raise ZeroDivisionError
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_os_error_with_path_and_reason(tmp_path, full):
    full(tmp_path)
    path = tmp_path / "x.json"
    with (
        pytest.raises(NotWritten, match=f"{path} could not be written: No space left on device.") as raised,
        replacing(path) as file,
    ):
        file.write(b"new")
    assert isinstance(raised.value, OSError) and isinstance(raised.value, UserError)
    assert files.no_room(raised.value) and not list(tmp_path.iterdir())


def test_a_folder_a_pipe_and_a_device_are_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("folder", "a folder"), ("pipe", "a named pipe")):
        with pytest.raises(NotWritten, match=f"{kind} with this name exists"), replacing(tmp_path / name):
            pass
    with pytest.raises(NotWritten, match="a device with this name exists"), replacing("/dev/null"):
        pass
    with pytest.raises(NotWritten, match="could not be written"), replacing(tmp_path / ("x" * 300)):
        pass


def test_a_name_as_long_as_file_systems_allow_can_be_written(tmp_path):
    path = tmp_path / ("ü" * 127)
    with replacing(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"


def test_a_file_on_a_full_disk_is_written_to_the_temporary_folder(tmp_path, elsewhere, full):
    path = tmp_path / "runs" / "x.json"
    full(tmp_path / "runs")
    with pytest.raises(NotWritten, match=r"runs/x.json could not be written: No space .* It was written to .*x.json"
                       " instead") as raised:  # fmt: skip
        write(path, lambda file: file.write(b"whole"))
    assert raised.value.elsewhere.read_bytes() == b"whole" and elsewhere in raised.value.elsewhere.parents
    full(tmp_path)
    with pytest.raises(
        NotWritten, match="It could not be written to the system's temporary folder either: .* No space"
    ) as raised:
        write(path, lambda file: file.write(b"whole"))
    assert raised.value.elsewhere is None and len(list(elsewhere.iterdir())) == 1


def test_temporary_files_of_a_killed_process_are_removed_by_the_next_one(tmp_path):
    script = """
import os, sys
from genbench.core.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "last.ckpt")])
    (orphan,) = tmp_path.iterdir()
    assert orphan.name.startswith(".last.ckpt.") and orphan.read_bytes() == b"half"
    others = [tmp_path / name for name in (".last.ckpt.abcd1234.tmp", "mine.tmp", f"x{orphan.name}")]
    for path in others:
        path.write_bytes(b"somebody's")
    with replacing(tmp_path / "other.json") as file:
        file.write(b"{}")
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "other.json"])


def test_a_new_file_is_created_once_and_completely(tmp_path):
    create(tmp_path / "x.json", b"first")
    with pytest.raises(FileExistsError):
        create(tmp_path / "x.json", b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.json", b"first")]


def test_a_new_file_on_a_full_disk_does_not_exist(tmp_path, full):
    full(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        create(tmp_path / "x.json", b"new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", files.NO_LINKS)
def test_new_files_can_be_created_on_file_systems_without_links(tmp_path, monkeypatch, number):
    def link(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    create(tmp_path / "x.json", b"first")
    with pytest.raises(FileExistsError):
        create(tmp_path / "x.json", b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.json", b"first")]


def test_a_file_that_is_being_written_is_not_removed(tmp_path):
    with replacing(tmp_path / "last.ckpt") as file:
        file.write(b"half")
        remove_orphans(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
    assert (tmp_path / "last.ckpt").read_bytes() == b"half"


def test_only_old_temporary_files_of_another_machine_are_removed(tmp_path):
    young, old = (tmp_path / f".a.ckpt.00000000-{pid}-5.abcd1234.tmp" for pid in (1, 2))
    for path in (young, old):
        path.write_bytes(b"")
    os.utime(old, (time.time() - 2 * files.OLD,) * 2)
    remove_orphans(tmp_path)
    assert list(tmp_path.iterdir()) == [young]
    remove_orphans(tmp_path / "nowhere")


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "file").write_text("x")
    assert ordinary(tmp_path / "file") == tmp_path / "file" and ordinary(tmp_path / "none") == tmp_path / "none"
    for name, kind in (("pipe", "a named pipe"), ("zero", "a device"), (".", "a folder")):
        with pytest.raises(UserError, match=f"is {kind}; expected a file"):
            ordinary(tmp_path / name)


def test_a_checkpoint_is_found_by_file_by_run_folder_or_in_the_newest_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(("first", "second")):
        folder = Path("runs", name, "checkpoints")
        folder.mkdir(parents=True)
        for kind in ("last", "best"):
            (folder / f"{kind}.ckpt").write_bytes(b"")
            os.utime(folder / f"{kind}.ckpt", (k + 1, k + 1))
    last = Path("runs/second/checkpoints/last.ckpt")
    assert find_checkpoint("runs/second") == find_checkpoint(last) == find_checkpoint("last") == last
    assert find_checkpoint("best", "runs", "first") == Path("runs/first/checkpoints/best.ckpt")
    os.mkfifo("pipe")
    for given, message in (("runs/third", "There is no checkpoint at runs/third"), ("pipe", "it is a named pipe"),
                           ("runs", "no checkpoint at runs/checkpoints/last.ckpt")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            find_checkpoint(given)
    with pytest.raises(UserError, match=r"There is no others/\*/checkpoints/last.ckpt yet"):
        find_checkpoint("last", "others")


def test_a_table_keeps_commas_quotes_line_breaks_and_names_that_are_not_unicode(tmp_path):
    import csv

    rows = [["a,b", 'say "x"', "two\nlines"], ["é", os.fsdecode(b"\xff.png"), "=1+1"]]
    files.write_csv(tmp_path / "t.csv", ["first", "second, third", "last"], rows)
    with open(tmp_path / "t.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert list(csv.reader(file)) == [["first", "second, third", "last"], *rows]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, UserError])
def test_an_interrupted_command_removes_the_new_files_of_its_folder_and_no_others(tmp_path, stop):
    old, other = tmp_path / "out/old.txt", tmp_path / "other.txt"
    write(old, lambda file: file.write(b"old"))
    for folder in (tmp_path / "out", tmp_path / "new"):
        with pytest.raises(stop), files.removed_on_failure(folder):
            for path in (folder / "a.txt", folder / "sub/deep/b.txt", old, other):
                write(path, lambda file: file.write(b"written"))
            raise stop
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == [other, old]
    assert not (tmp_path / "new").exists() and not (tmp_path / "out/sub").exists()


def test_files_are_kept_if_another_could_not_be_written(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(NotWritten) as raised, files.removed_on_failure(tmp_path):
        write(tmp_path / "a", lambda file: file.write(b"long work"))
        write(tmp_path / "b", lambda file: file.write(b"a folder"))
    assert (tmp_path / "a").read_bytes() == b"long work" and raised.value.elsewhere.exists()
    raised.value.elsewhere.unlink()


def test_a_path_that_is_no_file_is_not_proposed_instead_of_itself(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="it is a named pipe.$"):
        find_checkpoint(tmp_path / "pipe")
