"""The configs of the papers train on sets of their layout, at their size in pixels."""

import pytest
from PIL import Image

from genbench.cli import configs

PAPERS = sorted((configs.folder() / "papers").glob("*.yaml"))


def draw(path, width=256, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, 256), (level, 99, 200)).save(path)


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_a_papers_config_takes_its_steps(path, cli, tmp_path):
    unpaired = "UnpairedFolder" in path.read_text()
    for split in ("train", "test", "val")[: 2 if unpaired else 3]:
        for k in range(5):
            for domain in "AB" if unpaired else ("",):
                draw(tmp_path / path.stem / f"{split}{domain}" / f"{k}.jpg", 256 if unpaired else 512, 40 * k)
    small = ["--model.width", 2, "--model.discriminator_width", 2, "--data.eval_batch_size", 2]
    small += ["--quality.extractor", "digitsnet", "--data.workers", 0]
    small += ["--model.blocks", 1, "--data.val_size", 2] if unpaired else []
    here = ["--data.root", ".", "--name", "run"]
    status, _, err = cli("fit", "--config", f"papers/{path.stem}", *small, *here, "--max_images", 8)
    assert status == 0, err
    assert "Done: 8 images" in err and list((tmp_path / "runs/run/translations").glob("*.png"))


def test_they_are_listed_and_say_what_they_need(cli, tmp_path):
    assert {path.stem for path in PAPERS} == {"facades", "maps", "edges2shoes", "horse2zebra", "apple2orange"}
    status, out, _ = cli()
    assert status == 0 and "papers/facades" in out
    status, _, err = cli("fit", "--config", "papers/facades")
    assert status == 2 and "There is no folder or zip file `facades`" in err
