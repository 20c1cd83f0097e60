"""TextConditionalGAN: how captions enter its networks, mismatched captions, diversity, and what it refuses."""

import pytest
import torch

from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.noise import Draws
from genbench.models import TextConditionalGAN
from genbench.models.text_conditional_gan import TextDiscriminator, TextEncoder, _mismatched
from tests.helpers.small import RandomImages, run

SPEC = DataSpec((3, 16, 16), "caption", (), ("<pad>", "a", "red", "blue", "circle"))


def test_padding_does_not_change_a_captions_embedding_and_word_order_does():
    encoder = TextEncoder(5, 16).eval()
    short = encoder(torch.tensor([[1, 2, 4]]))
    torch.testing.assert_close(encoder(torch.tensor([[1, 2, 4, 0, 0]])), short)
    assert not torch.allclose(encoder(torch.tensor([[2, 1, 4]])), short)


def test_several_captions_at_once_equal_each_alone():
    discriminator = TextDiscriminator(3, 16, 4, 5, 8, "none").eval()
    x, a, b = torch.randn(6, 3, 16, 16), torch.randint(1, 5, (6, 4)), torch.randint(1, 5, (6, 4))
    for found, caption in zip(discriminator(x, a, b), (a, b), strict=True):
        torch.testing.assert_close(found, discriminator(x, caption)[0])


def test_the_logit_contains_the_inner_product_of_text_and_image_features():
    discriminator = TextDiscriminator(3, 16, 4, 5, 8, "none").eval()
    x, caption = torch.randn(6, 3, 16, 16), torch.randint(1, 5, (6, 4))
    phi = discriminator.squeeze(discriminator.body(x))
    expected = discriminator.output(phi)[:, 0] + (discriminator.text(caption) * phi).sum(1)
    torch.testing.assert_close(discriminator(x, caption)[0][:, 0], expected)


def test_a_batch_of_one_image_is_rejected():
    module = TextConditionalGAN(SPEC, width=4)
    one = Batch(torch.zeros(1, 3, 16, 16), caption=torch.ones(1, 4, dtype=torch.long))
    with pytest.raises(UserError, match="2 images"):
        module.training_step(one, 0)


@pytest.mark.parametrize("n", [2, 6, 7])
def test_with_diversity_two_images_of_each_caption_are_generated_and_compared(n, monkeypatch):
    module = TextConditionalGAN(SPEC, width=4, diversity=0.5)
    captions_used, pairs = [], []
    generate = module._generate
    monkeypatch.setattr(module, "_generate", lambda caption: captions_used.append(caption) or generate(caption))
    monkeypatch.setattr(
        "genbench.models.text_conditional_gan.alikeness", lambda a, b: pairs.append((a, b)) or (a - b).mean()
    )
    captions = torch.randint(1, 5, (64, 4))
    monkeypatch.setattr(RandomImages, "targets", {"caption": captions})
    run(module, images=n, batch_size=n)
    half = n // 2
    assert len(captions_used[0]) == n
    assert torch.equal(captions_used[0][:half], captions_used[0][half : 2 * half])
    assert [len(images) for images in pairs[0]] == [half, half]


def test_a_mismatched_caption_differs_in_one_word_which_another_caption_has():
    caption, draw = torch.randint(1, 9, (32, 5)), Draws()
    caption[1] = caption[0]
    draw.seed("test")
    wrong = _mismatched(caption, draw, 1)
    changed = wrong != caption
    assert torch.equal(changed.sum(1), (caption != caption.roll(1, 0)).any(1).long())  # none where the two are the same
    assert torch.equal(wrong[changed], caption.roll(1, 0)[changed])
    assert (changed.sum(0) > 0).all()  # every position is changed in some caption


def test_data_without_captions_is_rejected():
    with pytest.raises(UserError, match=r"this data has none.*--data.target caption"):
        TextConditionalGAN(DataSpec((1, 16, 16), "label", ("zero", "one", "two")))


def test_a_sample_without_a_caption_is_refused():
    with pytest.raises(UserError, match="Pass one"):
        TextConditionalGAN(SPEC, width=4).sample(torch.arange(2))


@pytest.mark.parametrize(
    ("setting", "least"), [({"mismatches": 0}, 1), ({"mismatch_weight": -1}, 0), ({"diversity": -1}, 0)]
)
def test_a_setting_below_its_least_is_rejected_by_name(setting, least):
    ((name, value),) = setting.items()
    with pytest.raises(UserError, match=f"model.{name} is {value}; it must be at least {least}"):
        TextConditionalGAN(SPEC, **setting)
