"""What is installed is what was written: the wheel has the configs, and trains from any folder."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_built_wheel_trains_from_its_configs_and_samples_from_its_models(tmp_path):
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("genbench-*.whl")
    site, work = tmp_path / "site", tmp_path / "work"
    run(*pip, "install", "--no-deps", "--target", site, wheel)
    work.mkdir()
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    where = run(sys.executable, "-c", "import genbench; print(genbench.__file__)", cwd=work, env=environment)
    assert Path(where.strip()).is_relative_to(site)
    assert (site / "genbench/py.typed").is_file()  # type checkers read the annotations of what is installed
    fit = ("fit", "--config", "quickstart", "--max_images", 128, "--name", "run", "--validation.samples", 16)
    said = run(sys.executable, "-m", "genbench", *fit, cwd=work, env=environment)
    assert "Done: 128 images" in said
    assert (work / "runs/run/checkpoints/last.ckpt").is_file()
    sample = ("sample", "--ckpt", "pretrained/dcgan-mnist", "--n", 4, "--out", "digits.png")
    run(sys.executable, "-m", "genbench", *sample, cwd=work, env=environment)
    assert (work / "digits.png").is_file()
