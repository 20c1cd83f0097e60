"""UNet: what it refuses, and how its translations are compared with the targets."""

import pytest
import torch

from genbench.core.batch import DataSpec
from genbench.core.capabilities import Reconstructs, Samples, Translates
from genbench.core.errors import UserError
from genbench.data import Digits
from genbench.evaluation import protocol
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.galleries import Gallery
from genbench.models import UNet

SPEC = DataSpec((3, 16, 16), "image", source=(1, 16, 16))


def test_it_translates_and_does_nothing_else():
    model = UNet(SPEC, width=4, depth=2).eval()
    assert model.translate(torch.rand(2, 1, 32, 16) * 100, to="B").shape == (2, 3, 32, 16)
    assert model.translate(torch.rand(2, 1, 16, 16) * 100).abs().max() <= 1
    assert isinstance(model, Translates) and not isinstance(model, (Samples, Reconstructs))


def test_data_without_pairs_and_sizes_that_do_not_halve_are_rejected():
    with pytest.raises(UserError, match="this data has none. Choose a task, such as `--data"):
        UNet(DataSpec((3, 16, 16)))
    with pytest.raises(UserError, match="multiples of 16, but the data has 24"):
        UNet(DataSpec((3, 24, 24), "image", source=(1, 24, 24)))


class Copies(UNet):
    """Returns its input."""

    def translate(self, x, *, to="B"):
        return x


def test_a_translation_is_compared_with_its_target():
    data = Digits(size=16, task="denoise", val_size=60)
    few = protocol.load("quick").changed(real=40)
    kept = Gallery()
    found = evaluate(Copies(data.spec, width=4, depth=2), data, few, pictures=kept).metrics
    source, truth = (torch.cat([getattr(b, name) for b in data.val_dataloader()]) for name in ("source", "image"))
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:40].sort().values
    mse = (source[rows] - truth[rows]).square().mean().item()
    assert found["translation_mse"]["value"] == pytest.approx(mse, rel=1e-5)
    assert found["translation_psnr"]["track"] == "translation" and found["translation_fid-digitsnet"]["value"] > 0
    assert kept.found["translations"].shape == (3 * 32, 1, 16, 16)


def test_translations_of_other_sources_are_not_compared():
    keys = []
    for task in ("denoise", "deblur"):
        data = Digits(size=16, task=task, val_size=60)
        keys.append(evaluate(Copies(data.spec, width=4, depth=2), data, protocol.load("quick")).protocol["key"])
    assert keys[0] != keys[1]
