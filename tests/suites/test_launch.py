"""Runs on this machine have devices and threads of their own."""

import json
import os

from genbench.suites import launch
from genbench.suites.definition import Launch
from tests.helpers.suites import finish


def test_each_run_has_its_own_gpus_and_threads(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # in an allocation

    def look(name):
        import json as text
        import os as system
        from pathlib import Path as File

        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_JOB_ID")
        File(name).write_text(text.dumps([system.environ.get(n) for n in names]))

    here = launch.Here(tmp_path / "kept", Launch(threads=3), 4)
    for name, devices in {"a": 2, "b": 1}.items():
        here.start(name, devices, look, str(tmp_path / name))
    assert here.room(1) and not here.room(2)
    finish(here)
    found = [json.loads((tmp_path / name).read_text()) for name in "ab"]
    assert found == [["0,1", "3", None], ["2", "3", None]]
    assert here.room(4)


def test_cpus_are_divided_among_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    shares = [Launch(), Launch(at_once=2), Launch(threads=4), Launch(at_once=3, threads=1)]
    found = [launch.Here(tmp_path, share, 0) for share in shares]
    assert [(here.at_once, here.threads) for here in found] == [(8, 1), (2, 4), (2, 4), (3, 1)]
