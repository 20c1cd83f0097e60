"""The command `export`."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import genbench
from genbench.analysis import export
from genbench.cli import configs
from genbench.core.errors import UserError
from genbench.testing.recipe import Recipe, train

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of three short runs: a DCGAN, a GAN of points, and a PixelCNN."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("quickstart", "ring", "pixelcnn_by_class"):
        train(Recipe(configs.folder() / f"{name}.yaml"), folder / name, images=32)
    return folder


def test_a_generator_is_written_with_a_script_that_runs_without_genbench(runs, cli):
    status, out, err = cli("export", "--ckpt", runs / "quickstart")
    assert (status, err) == (0, "")
    assert sorted(path.name for path in Path().iterdir()) == ["generator.onnx", "generator.onnx.py"]
    assert out.startswith("generator of DCGAN at 32 images seen -> generator.onnx (0.")
    assert "  input   z: float32 [batch, 64], independent standard normal numbers\n" in out
    assert "  output  image: float32 [batch, 1, 32, 32], gray from -1 to 1 (pixel / 127.5 - 1)\n" in out
    assert "largest difference from the model, in onnxruntime with batches of 1 and 5: " in out
    assert out.endswith(Path("generator.onnx.py").read_text())

    model = genbench.load(runs / "quickstart")  # with EMA weights, as `sample` uses them
    z = model.sample_latents(torch.arange(3))
    (found,) = onnxruntime.InferenceSession("generator.onnx").run(None, {"z": z.numpy()})
    assert (torch.from_numpy(found) - model.sample(torch.arange(3))).abs().max() < 1e-5
    blocked = "import sys, runpy; sys.modules['genbench'] = None; runpy.run_path('generator.onnx.py')"
    assert subprocess.check_output([sys.executable, "-c", blocked], text=True) == "(4, 1, 32, 32) float32\n"


def test_the_suffix_chooses_the_format_and_points_work_too(runs, cli):
    status, out, _ = cli("export", "--ckpt", runs / "ring", "--raw", "--out", "deep/ring.pt2")
    assert status == 0 and "image" not in out.partition("\n\n")[0].partition("->")[2]
    assert "  output  point: float32 [batch, 2], coordinates as in the data\n" in out
    model = genbench.load(runs / "ring", raw=True)
    z = model.sample_latents(torch.arange(3))
    found = torch.export.load("deep/ring.pt2").module()(z)
    assert torch.equal(found, model.decode(z))


def test_existing_files_are_replaced_only_on_request(runs, cli):
    ring = ("export", "--ckpt", runs / "ring", "--out", "ring.pt2")
    assert cli(*ring)[0] == 0
    Path("ring.pt2").write_text("mine")
    status, _, err = cli(*ring)
    assert status == 2 and err == ("error: ring.pt2 exists already. Use a different `--out`, or add `--overwrite`.\n")
    Path("ring.pt2").unlink()
    status, _, err = cli(*ring)
    assert status == 2 and "ring.pt2.py exists already" in err
    assert not Path("ring.pt2").exists()
    assert cli(*ring, "--overwrite")[0] == 0
    Path("folder.onnx").mkdir()
    status, _, err = cli("export", "--ckpt", runs / "ring", "--out", "folder.onnx", "--overwrite")
    assert status == 2 and "folder.onnx is a folder; expected a file" in err


@pytest.mark.parametrize(
    ("run", "flags", "message"),
    [
        ("ring", ["--out", "ring.pt"], "--out ring.pt: '.pt' is neither .onnx nor .pt2 (torch.export)."),
        ("ring", ["--out", "ring.onnx", "--format", "torch"], "a file of `--format torch` needs the suffix .pt2."),
        ("ring", ["--part", "encoder"], "GAN has no encoder. Parts that it has: generator, decoder."),
        ("ring", ["--part", "genrator"], "Unknown part 'genrator'.", ),
        ("ring", ["--to", "A"], "A target domain (A) is for a translator, but the exported part is the generator."),
        ("ring", ["--seed", "3"], "GAN has no option --seed; its own options: none."),
        ("ring", ["--device", "cuda"], "--device cuda: networks are exported on the CPU, and run on any device."),
        ("pixelcnn_by_class", [], "PixelCNN cannot be exported: it has none of the methods `decode`, `translate`,"),
        ("none", [], "none: there is no checkpoint at "),
    ],
)  # fmt: skip
def test_invalid_flags_are_refused_in_one_sentence(runs, cli, run, flags, message):
    status, out, err = cli("export", "--ckpt", runs / run, *flags)
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1
    assert not any(Path().iterdir())


def test_a_network_that_differs_from_the_model_leaves_no_file(runs, cli, monkeypatch):
    monkeypatch.setattr(export, "difference", lambda *_: 0.5)
    status, _, err = cli("export", "--ckpt", runs / "ring", "--format", "torch")
    assert status == 2 and "The exported generator of GAN was not written: in PyTorch, its output differs" in err
    assert not any(Path().iterdir())


def test_a_missing_extra_is_refused_before_the_checkpoint_is_read(cli, monkeypatch):
    def refuse(format):
        raise UserError("missing")

    monkeypatch.setattr(export, "refuse_missing", refuse)
    assert cli("export", "--ckpt", "nowhere")[::2] == (2, "error: missing\n")
