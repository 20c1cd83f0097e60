"""The configs of the papers train on sets of their layout, at their size in pixels."""

import pytest
import yaml
from PIL import Image

from genbench.cli import configs

PAPERS = sorted((configs.folder() / "papers").glob("*.yaml"))


def draw(path, width=256, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, 256), (level, 99, 200)).save(path)


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_a_papers_config_takes_its_steps(path, cli, tmp_path):
    unpaired = "UnpairedFolder" in path.read_text()
    splits = {"facades": ("train", "val", "test")}.get(path.stem, ("train", "test") if unpaired else ("train", "val"))
    for split in splits:
        for k in range(6):
            for domain in "AB" if unpaired else ("",):
                draw(tmp_path / path.stem / f"{split}{domain}" / f"{k}.jpg", 256 if unpaired else 512, 40 * k)
    small = ["--model.width", 2, "--model.discriminator_width", 2, "--data.eval_batch_size", 2]
    small += ["--validation.extractor", "digitsnet", "--data.workers", 0]
    small += ["--model.blocks", 1] if unpaired else []
    small += ["--data.val_size", 2] if "val_size" in path.read_text() else []
    here = ["--data.root", ".", "--name", "run"]
    status, _, err = cli("fit", "--config", f"papers/{path.stem}", *small, *here, "--max_images", 8)
    assert status == 0, err
    assert "Done: 8 images" in err and list((tmp_path / "runs/run/translations").glob("*.png"))


SETTINGS = {  # of the papers: pix2pix, section 6.2, and CycleGAN, section 7 and the sizes of the sets; images of a run
    "facades": (200 * 400, 1, "BtoA", 30),
    "maps": (200 * 1096, 1, "BtoA", 30),
    "edges2shoes": (15 * 50_000, 4, "AtoB", None),
    "horse2zebra": (200 * 1334, 1, None, 30),
    "apple2orange": (200 * 1019, 1, None, 30),
}


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_a_papers_config_has_its_settings(path):
    config = yaml.safe_load(path.read_text())
    model, data = (config[part]["init_args"] for part in ("model", "data"))
    given = (config["max_images"], data["batch_size"], data.get("direction"), data.get("random_crop"))
    assert given == SETTINGS[path.stem] and data["size"] == 256
    shoes = path.stem == "edges2shoes"
    assert (data.get("hflip", False), model.get("norm", "instance")) == (not shoes, "batch" if shoes else "instance")
    assert model["optimizer"] == {"class_path": "torch.optim.Adam", "lr": 0.0002, "betas": [0.5, 0.999]}
    assert (model["width"], model["discriminator_width"], model["patch_layers"]) == (64, 64, 3)
    if "schedule" in model:  # half at the full rate, half on the way to none
        assert model["schedule"] == {"decay_from": 0.5}
        assert (model["cycle"], model["pool"], model["blocks"], model["identity"]) == (10, 50, 9, 0)
    else:
        assert (model["l1"], model["depth"], model["dropout"]) == (100, 8, 0.5)


def test_configs_of_papers_are_listed_with_what_they_need(cli, tmp_path):
    assert {path.stem for path in PAPERS} == {"facades", "maps", "edges2shoes", "horse2zebra", "apple2orange"}
    status, out, _ = cli()
    assert status == 0 and "papers/facades" in out
    status, _, err = cli("fit", "--config", "papers/facades")
    assert status == 2 and "There is no file or folder `facades`" in err
