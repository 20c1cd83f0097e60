"""Tabs and controls follow from the abilities and the signatures of the models, and every function of the page runs."""

import pytest
import torch

pytest.importorskip("gradio")

import gradio as gr

from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.data import Shapes
from genbench.models import (
    GAN,
    VAE,
    VQVAE,
    Autoencoder,
    ConditionalVAE,
    Pix2Pix,
    PixelCNN,
    SegmentationUNet,
    SemiSupervisedGAN,
    TextConditionalGAN,
)
from genbench.play import interface
from genbench.play.actions import Loaded

TEN = tuple("0123456789")
GRAY = DataSpec((1, 16, 16), "label", TEN)
SAMPLING = ["Sample", "Latent sliders", "Interpolate", "Arithmetic"]
IMAGES = ["Upload an image", "Draw"]


class Guided(VAE):
    """Has a sampling option of each kind."""

    def sample(self, seeds, *, condition=None, truncation: float = 1.5, steps: int = 3, method: str = "ddim"):
        assert (type(truncation), type(steps), type(method)) == (float, int, str)
        return super().sample(seeds) * truncation / steps


def loaded(model, name="model"):
    def images():
        raise UserError("the training images are not here.")

    return Loaded(name, "", model.eval().requires_grad_(False), {}, images)


def of(blocks, kind):
    return [block for block in blocks.blocks.values() if type(block) is kind]


def run(blocks):
    """Every function of the page with the first values of its controls; returns the columns of results."""
    shown = []
    for function in blocks.fns.values():
        values = [getattr(control, "value", None) for control in function.inputs]
        found = function.fn(*values)
        shown += [found] if isinstance(found, str) else []
    return shown


MODELS = {
    "VAE": (lambda: VAE(GRAY, width=4), [*SAMPLING, *IMAGES]),
    "GAN of points": (lambda: GAN(DataSpec((2,)), hidden=(8,)), ["Sample"]),
    "PixelCNN": (lambda: PixelCNN(DataSpec((1, 8, 8)), width=4, layers=1), ["Sample", "Upload an image"]),
    "Autoencoder": (lambda: Autoencoder(GRAY), ["Latent sliders", *IMAGES]),
    "ConditionalVAE": (lambda: ConditionalVAE(GRAY, width=4), [*SAMPLING, *IMAGES]),
    "VQVAE": (lambda: VQVAE(GRAY, width=8), IMAGES),
    "SemiSupervisedGAN": (
        lambda: SemiSupervisedGAN(DataSpec((1, 32, 32), "label", TEN), width=4), [*SAMPLING, *IMAGES],
    ),
    "TextConditionalGAN": (
        lambda: TextConditionalGAN(Shapes(size=32, target="caption").spec, width=4), SAMPLING,
    ),
    "Pix2Pix": (
        lambda: Pix2Pix(DataSpec((3, 32, 32), "image", source=(1, 32, 32)), width=4, depth=3), ["Upload an image"],
    ),
    "SegmentationUNet": (
        lambda: SegmentationUNet(DataSpec((1, 16, 16), "mask", ("no", "yes")), width=2, depth=2), ["Upload an image"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_tabs_of_its_abilities_and_they_run(name):
    make, tabs = MODELS[name]
    blocks = interface.page([loaded(make())])
    assert [tab.label for tab in of(blocks, gr.Tab)] == tabs
    shown = run(blocks)
    assert len(shown) == len(tabs)
    alerts = [text for text in shown if 'role="alert"' in text]
    assert len(alerts) == (name == "Autoencoder")  # its sliders need an image
    assert sum("<img" in text for text in shown) == len([tab for tab in tabs if tab in SAMPLING]) - len(alerts)


def test_options_of_sample_are_controls_of_their_type():
    blocks = interface.page([loaded(Guided(GRAY, width=4)), loaded(VAE(GRAY, width=4), "plain")])
    found = {
        block.label: (type(block), block.value)
        for block in blocks.blocks.values()
        if getattr(block, "label", None) in ("Truncation", "Steps", "Method", "Mean of the decoder")
    }
    assert found == {
        "Truncation": (gr.Number, 1.5), "Steps": (gr.Number, 3), "Method": (gr.Textbox, "ddim"),
        "Mean of the decoder": (gr.Checkbox, True),
    }  # fmt: skip
    assert not [text for text in run(blocks) if 'role="alert"' in text]


def test_classes_and_prompts_are_those_of_all_models_and_a_missing_class_is_a_sentence():
    letters = DataSpec((1, 16, 16), "label", ("a", "b"))
    models = [loaded(ConditionalVAE(GRAY, width=4)), loaded(ConditionalVAE(letters, width=4), "letters")]
    blocks = interface.page(models)
    choices = [value for _, value in of(blocks, gr.Dropdown)[0].choices]
    assert choices == ["all classes in turn", *TEN, "a", "b"]
    alerts = [text for text in run(blocks) if 'role="alert"' in text]
    assert len(alerts) == 3 and all("This model has no class &#x27;0&#x27;" in text for text in alerts)  # latent tabs


def test_no_function_is_offered_to_other_programs():
    blocks = interface.page([loaded(VAE(GRAY, width=4))])
    assert blocks.fns and all(function.api_visibility == "private" for function in blocks.fns.values())
    assert torch.is_grad_enabled()
