"""Pix2Pix: its loss terms, its dropout, and what it refuses."""

import pytest
import torch

from genbench.core.batch import Batch, DataSpec
from genbench.core.capabilities import Samples, Translates
from genbench.core.errors import UserError
from genbench.models import Pix2Pix
from tests.helpers.small import Turns

PAIRS = DataSpec((3, 16, 16), "image", source=(1, 16, 16))


def pix2pix(spec=PAIRS, **more):
    return Pix2Pix(spec, **{"width": 4, "depth": 3, "discriminator_width": 4, "patch_layers": 1} | more)


def test_loss_terms_are_those_of_the_paper():
    torch.manual_seed(0)
    model, batch = pix2pix(dropout=0.0, l1=100.0), Batch(torch.rand(4, 3, 16, 16), source=torch.rand(4, 1, 16, 16))
    model.turn, model.draw = (turns := Turns()), lambda kind, *shape: kind(*shape)
    model.training_step(batch, 0)
    made = model.generator(batch.source, lambda *s: torch.ones(1, *s))
    logits = [model.discriminator(torch.cat([batch.source, x], 1)) for x in (batch.image, made)]
    # equations 1 and 3 of the paper, with the generator's log D
    terms = turns.terms["discriminator"]
    assert terms["real"].item() == pytest.approx(-logits[0].sigmoid().log().mean().item(), rel=1e-4)
    assert terms["fake"].item() == pytest.approx(-(1 - logits[1].sigmoid()).log().mean().item(), rel=1e-4)
    terms = turns.terms["generator"]
    assert terms["adversarial"].item() == pytest.approx(-logits[1].sigmoid().log().mean().item(), rel=1e-4)
    assert terms["l1"].item() == pytest.approx(100 * (made - batch.image).abs().mean().item(), rel=1e-4)


def test_it_translates_with_dropout_that_a_seed_draws_and_does_not_sample():
    model, x = pix2pix().eval(), torch.rand(3, 1, 16, 24)
    assert isinstance(model, Translates) and not isinstance(model, Samples)
    assert torch.equal(model.translate(x), model.translate(x, to="B", seed=0))
    assert torch.allclose(model.translate(x)[1:2], model.translate(x[1:2]), atol=1e-6)  # the same for all images
    assert (model.translate(x) - model.translate(x, seed=1)).abs().max() > 1e-4


def test_data_without_pairs_too_small_images_and_a_dropout_of_one_are_rejected():
    with pytest.raises(UserError, match="Pix2Pix needs pairs of images, but this data has none"):
        pix2pix(DataSpec((3, 16, 16), "domain", source=(3, 16, 16)))
    with pytest.raises(UserError, match="needs images of at least 24 pixels per side"):
        pix2pix(patch_layers=3)
    with pytest.raises(UserError, match="model.dropout is 1.0; it must be a fraction below 1"):
        pix2pix(dropout=1.0)
