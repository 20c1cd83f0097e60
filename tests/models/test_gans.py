"""What each GAN of the family promises beside what every model must do."""

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from genbench.core.batch import Batch, DataSpec
from genbench.core.capabilities import Classifies, Samples
from genbench.core.errors import UserError
from genbench.core.noise import Draws
from genbench.models import DCGAN, GAN, SNGAN, ConditionalGAN, SemiSupervisedGAN, TextConditionalGAN
from genbench.models.conditional_gan import Auxiliary, Concatenation, Projection
from genbench.models.semi_supervised_gan import UnitRows, real_logit
from genbench.models.text_conditional_gan import Judge, TextEncoder, _mismatched
from genbench.objectives.augment import AUGMENTATIONS
from tests.helpers.small import RandomImages, Turns, run

LABELS = DataSpec((1, 16, 16), "label", ("zero", "one", "two"))
CAPTIONS = DataSpec((3, 16, 16), "caption", (), ("<pad>", "a", "red", "blue", "circle"))


@pytest.mark.parametrize("model", [ConditionalGAN, SemiSupervisedGAN])
def test_labels_asked_of_an_unlabeled_set_are_refused(model):
    with pytest.raises(UserError, match=r"this data has none.*--data.target label"):
        model(DataSpec((3, 16, 16), "caption", (), ("<pad>", "a")))


def test_captions_asked_of_a_set_without_are_refused():
    with pytest.raises(UserError, match=r"this data has none.*--data.target caption"):
        TextConditionalGAN(LABELS)


@pytest.mark.parametrize("model", [DCGAN, ConditionalGAN, SemiSupervisedGAN])
def test_a_size_that_the_networks_cannot_make_is_refused_with_those_that_they_can(model):
    with pytest.raises(UserError, match="16, 32, 64, 128, 256 pixels a side; the data has 28"):
        model(DataSpec((1, 28, 28), "label", ("zero", "one")))


def test_sngan_makes_32_pixels_alone():
    with pytest.raises(UserError, match=r"32 pixels a side, and the data has 64. Set `--data.size 32`"):
        SNGAN(DataSpec((3, 64, 64)))


@pytest.mark.parametrize("model", [GAN, DCGAN, SNGAN, SemiSupervisedGAN])
def test_an_unconditional_model_refuses_a_condition(model):
    module = model(DataSpec((1, 32, 32), "label", ("zero", "one")), **({} if model is GAN else {"width": 4}))
    with pytest.raises(UserError):
        module.sample(torch.arange(2), condition=torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize(("model", "spec"), [(ConditionalGAN, LABELS), (TextConditionalGAN, CAPTIONS)])
def test_a_conditional_model_asks_for_its_condition(model, spec):
    with pytest.raises(UserError, match="give"):
        model(spec, width=4).sample(torch.arange(2))


@pytest.mark.parametrize(
    ("model", "spec", "setting"),
    [
        (ConditionalGAN, LABELS, {"class_weight": -1}),
        (SemiSupervisedGAN, LABELS, {"unsupervised": -1}),
        (SemiSupervisedGAN, LABELS, {"consistency": -0.5}),
        (SemiSupervisedGAN, LABELS, {"noise": -0.5}),
        (TextConditionalGAN, CAPTIONS, {"mismatches": 0}),
        (TextConditionalGAN, CAPTIONS, {"mismatch_weight": -1}),
        (TextConditionalGAN, CAPTIONS, {"diversity": -1}),
    ],
)
def test_a_setting_below_its_least_is_refused_by_name(model, spec, setting):
    ((name, value),) = setting.items()
    with pytest.raises(UserError, match=f"model.{name} is {value}; it must be at least [01]"):
        model(spec, **setting)


def test_a_point_may_lie_anywhere_and_a_pixel_within_one():
    points, images = GAN(DataSpec((2,)), hidden=[8]), GAN(DataSpec((1, 6, 6)), hidden=[8])
    for module in (points, images):
        nn.init.constant_(module.generator[0][-1].bias, 5.0)
    assert points.sample(torch.arange(4)).min() > 3
    assert images.sample(torch.arange(4)).abs().max() <= 1


@pytest.mark.parametrize("kind", [Concatenation, Projection])
def test_the_label_changes_the_verdict(kind):
    net = kind(1, 16, 4, 3, "batch").eval()
    x = torch.randn(5, 1, 16, 16)
    a, b = (net(x, torch.full((5,), k))[0] for k in (0, 1))
    assert a.shape == (5, 1) and not torch.allclose(a, b)


def test_the_auxiliary_discriminator_does_not_look_at_the_label_and_names_it():
    net = Auxiliary(1, 16, 4, 3, "batch").eval()
    x = torch.randn(5, 1, 16, 16)
    (a, named), (b, _) = (net(x, torch.full((5,), k)) for k in (0, 1))
    assert torch.equal(a, b) and named.shape == (5, 3)


def test_projection_is_the_papers_sum_of_a_linear_head_and_an_inner_product():
    net = Projection(1, 16, 4, 3, "none").eval()
    x, label = torch.randn(5, 1, 16, 16), torch.tensor([0, 2, 1, 1, 0])
    phi = net.squeeze(net.body(x))
    expected = phi @ net.output.weight.T + net.output.bias + (phi * net.embedding.weight[label]).sum(1, keepdim=True)
    torch.testing.assert_close(net(x, label)[0], expected)


def test_conditional_samples_of_one_seed_differ_by_label():
    module = ConditionalGAN(LABELS, width=4, latent_dim=4).eval()
    seeds = torch.tensor([7, 7, 7])
    images = module.sample(seeds, condition=torch.arange(3))
    assert len(images.flatten(1).unique(dim=0)) == 3


def test_k_plus_one_classes_are_a_discriminator_of_their_normalizer():
    # with a logit of 0 for class K + 1 the softmax gives 1 - p(K + 1 | x) = Z / (Z + 1)
    logits = 3 * torch.randn(9, 4, dtype=torch.float64)
    softmax = torch.cat([logits, torch.zeros(9, 1, dtype=torch.float64)], 1).softmax(1)
    torch.testing.assert_close(real_logit(logits).sigmoid(), 1 - softmax[:, -1])
    # and the adversarial terms are the cross-entropies of section 5
    expected = cross_entropy(real_logit(logits), torch.ones(9, dtype=torch.float64))
    torch.testing.assert_close(-(1 - softmax[:, -1]).log().mean(), expected)


def test_a_semi_supervised_gan_classifies_and_samples():
    module = SemiSupervisedGAN(LABELS, width=4, latent_dim=4).eval()
    assert isinstance(module, Classifies) and isinstance(module, Samples)
    assert module.classify(torch.randn(5, 1, 16, 16)).shape == (5, 3)


def test_padding_says_nothing_and_the_order_of_words_something():
    encoder = TextEncoder(5, 16).eval()
    short = encoder(torch.tensor([[1, 2, 4]]))
    torch.testing.assert_close(encoder(torch.tensor([[1, 2, 4, 0, 0]])), short)
    assert not torch.allclose(encoder(torch.tensor([[2, 1, 4]])), short)


def test_several_captions_share_the_images_part():
    judge = Judge(3, 16, 4, 5, 8, "none").eval()
    x, a, b = torch.randn(6, 3, 16, 16), torch.randint(1, 5, (6, 4)), torch.randint(1, 5, (6, 4))
    for found, caption in zip(judge(x, a, b), (a, b), strict=True):
        torch.testing.assert_close(found, judge(x, caption)[0])


def test_weights_of_any_length_make_the_same_layer_of_the_papers_network():
    layer, x = UnitRows(6, 4), torch.randn(9, 6)
    before = layer(x)
    with torch.no_grad():
        layer.weight *= torch.tensor([[0.1], [1.0], [3.0], [10.0]])
    torch.testing.assert_close(layer(x), before)
    torch.testing.assert_close(
        before, 2**0.5 * x @ (layer.weight / layer.weight.norm(dim=1, keepdim=True)).T + layer.bias
    )


@pytest.fixture
def labeled(monkeypatch):
    monkeypatch.setattr(RandomImages, "targets", {"label": torch.arange(64) % 3})


def test_labels_alone_leave_the_generator_where_it_is(labeled):
    module = SemiSupervisedGAN(LABELS, network="mlp", hidden=[8], latent_dim=4, unsupervised=0)
    before = [p.clone() for p in module.generator.parameters()]
    run(module, images=16)
    assert module.updates == {"generator": 0, "discriminator": 2}
    assert all(torch.equal(a, b) for a, b in zip(before, module.generator.parameters(), strict=True))


@pytest.mark.parametrize("consistency", [0.0, 1.0])
def test_labeled_images_are_transformed_and_real_ones_once_more_for_consistency(consistency, labeled, monkeypatch):
    # a transform that paints them black, seen by what the network is given
    monkeypatch.setitem(AUGMENTATIONS, "cutout", lambda x, draw: torch.full_like(x, -1))
    settings = {"network": "mlp", "hidden": [8], "latent_dim": 4, "transforms": ["cutout"], "consistency": consistency}
    module = SemiSupervisedGAN(LABELS, **settings)
    shown = []
    module.discriminator.register_forward_pre_hook(lambda _, args: shown.append(args[0].detach()))
    run(module, images=8)
    black = [bool((part == -1).all()) for part in shown[0].split(8)]  # labeled, real, generated, and transformed
    assert black == [True, False, False, True][: 4 if consistency else 3]


def test_consistency_is_the_cross_entropy_from_an_images_classes_to_those_of_its_transform(monkeypatch):
    monkeypatch.setitem(AUGMENTATIONS, "cutout", lambda x, draw: x.flip(3))
    module = SemiSupervisedGAN(LABELS, network="mlp", hidden=[8], latent_dim=4, transforms=["cutout"], consistency=1.0)
    module.turn = turns = Turns()
    x = torch.randn(8, 1, 16, 16)
    module.eval()
    module.training_step(Batch(x, label=torch.arange(8) % 3), 0)
    wanted, found = module.classify(x).softmax(1), module.classify(x.flip(3)).log_softmax(1)
    torch.testing.assert_close(turns.terms["discriminator"]["consistency"], -(wanted * found).sum(1).mean())


def test_a_caption_has_a_mismatch_in_its_batch():
    module = TextConditionalGAN(CAPTIONS, width=4)
    one = Batch(torch.zeros(1, 3, 16, 16), caption=torch.ones(1, 4, dtype=torch.long))
    with pytest.raises(UserError, match="2 images"):
        module.training_step(one, 0)


@pytest.mark.parametrize("n", [2, 6, 7])
def test_with_diversity_two_images_of_each_caption_are_drawn_and_told_apart(n, monkeypatch):
    module = TextConditionalGAN(CAPTIONS, width=4, diversity=0.5)
    asked, pairs = [], []
    generate = module._generate
    monkeypatch.setattr(module, "_generate", lambda caption: asked.append(caption) or generate(caption))
    monkeypatch.setattr(
        "genbench.models.text_conditional_gan.alikeness", lambda a, b: pairs.append((a, b)) or (a - b).mean()
    )
    captions = torch.randint(1, 5, (64, 4))
    monkeypatch.setattr(RandomImages, "targets", {"caption": captions})
    run(module, images=n, batch_size=n)
    half = n // 2
    assert len(asked[0]) == n and torch.equal(asked[0][:half], asked[0][half : 2 * half])
    assert [len(images) for images in pairs[0]] == [half, half]


def test_a_mismatched_caption_differs_in_one_word_which_is_anothers():
    caption, draw = torch.randint(1, 9, (32, 5)), Draws()
    caption[1] = caption[0]
    draw.seed("test")
    wrong = _mismatched(caption, draw, 1)
    changed = wrong != caption
    assert torch.equal(changed.sum(1), (caption != caption.roll(1, 0)).any(1).long())  # none where the two are the same
    assert torch.equal(wrong[changed], caption.roll(1, 0)[changed])
    assert (changed.sum(0) > 0).all()  # each place's turn comes


def test_the_verdict_on_a_pair_is_a_sum_over_features_of_text_and_image():
    judge = Judge(3, 16, 4, 5, 8, "none").eval()
    x, caption = torch.randn(6, 3, 16, 16), torch.randint(1, 5, (6, 4))
    phi = judge.squeeze(judge.body(x))
    expected = judge.output(phi)[:, 0] + (judge.text(caption) * phi).sum(1)
    torch.testing.assert_close(judge(x, caption)[0][:, 0], expected)


def test_five_critic_steps_to_one_of_the_generator():
    adversarial = {"objective": "wasserstein", "clip": 0.01, "discriminator_steps": 5}
    module = DCGAN(DataSpec((1, 16, 16)), width=4, latent_dim=4, adversarial=adversarial)
    run(module, images=8 * 11)
    assert module.updates == {"generator": 2, "discriminator": 11}
    assert all(p.abs().max() <= 0.01 for p in module.discriminator.parameters())


def test_two_generator_steps_to_one_of_the_discriminator():
    module = GAN(DataSpec((1, 16, 16)), hidden=[8], latent_dim=4, adversarial={"generator_steps": 2})
    run(module, images=8 * 3)
    assert module.updates == {"generator": 6, "discriminator": 3}


def test_accumulation_refuses_several_turns_of_one_player_on_a_batch():
    module = GAN(DataSpec((1, 16, 16)), hidden=[8], latent_dim=4, adversarial={"generator_steps": 2}, accumulate=2)
    with pytest.raises(UserError, match=r"the generator takes several turns on one batch.*adversarial.generator_steps"):
        run(module, images=16)


@pytest.mark.parametrize(
    "adversarial",
    [
        {"objective": "minimax", "smoothing": 0.9},
        {"objective": "least_squares", "instance_noise": 0.1},
        {"objective": "hinge", "spectral_norm": True},
        {"objective": "wasserstein", "gradient_penalty": 10},
        {"objective": "non_saturating", "r1": 1, "augment": ["color", "translation", "cutout"]},
    ],
    ids=lambda adversarial: adversarial["objective"],
)
def test_every_objective_and_penalty_trains_a_model(adversarial):
    module = GAN(DataSpec((1, 16, 16)), hidden=[8], latent_dim=4, adversarial=adversarial)
    # of a linear cost the output's bias has no gradient: real and fake images pull it alike
    weights = [p for p in module.parameters() if p.numel() > 1]
    before = [p.clone() for p in weights]
    run(module, images=16)
    assert all(not torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    assert all(torch.isfinite(p).all() for p in weights)
