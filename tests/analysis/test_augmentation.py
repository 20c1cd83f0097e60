"""Synthetic images have the right labels, and the classifiers are trained on the right images."""

import pytest
import torch

from genbench.analysis import augmentation
from genbench.analysis.augmentation import (
    Synthetic,
    Trained,
    classification_accuracy,
    labeled_rows,
    synthesize,
    train_classifier,
)
from genbench.core.batch import Batch, DataSpec, from_uint8
from genbench.core.errors import UserError
from genbench.data import Digits, Shapes
from genbench.data.loader import MemorySource
from genbench.evaluation.extractor import state_hash
from genbench.models import DCGAN, ConditionalGAN, ConditionalVAE, PixelCNN, SemiSupervisedGAN
from tests.helpers.conditional import CAPTIONS, LABELS, THIRDS, Toned, Tones


def tones(images):
    return from_uint8(images)[:, 0, 0, 0]


def test_a_conditional_model_is_asked_for_each_class_in_turn():
    made = synthesize(Toned(LABELS), 12, seed=5)
    assert made.label.tolist() == [0, 1, 2] * 4 and made.drawn == 12 and made.unsure == made.extra == 0
    assert (made.images[:, 0, 0, 0].int() - 10 * made.label).abs().max() <= 1  # Toned draws class k at level 10 k


def test_the_classifier_of_an_unconditional_model_labels_its_samples():
    made = synthesize(Tones(THIRDS), 30)
    third = ((tones(made.images) + 1) / 2 * 3).long().clamp(max=2)
    assert torch.equal(made.label, third) and made.label.bincount().tolist() == [10, 10, 10]
    assert made.drawn == 30 + made.extra and made.unsure == 0


def test_samples_are_the_first_of_each_class_in_the_order_of_the_seeds():
    made = synthesize(Tones(THIRDS), 6, seed=7, least_probability=0.9)
    model, found = Tones(THIRDS), {0: [], 1: [], 2: []}
    drawn = unsure = extra = 0
    while min(map(len, found.values())) < 2:  # one at a time
        x = from_uint8(augmentation.to_stored(model.sample(torch.tensor([7 + drawn]))))
        probability, label = model.classify(x).softmax(1)[0].max(0)
        drawn += 1
        if probability < 0.9:
            unsure += 1
        elif len(found[int(label)]) == 2:
            extra += 1
        else:
            found[int(label)].append(x[0, 0, 0, 0])
    assert torch.equal(tones(made.images), torch.stack([found[k][row] for row in range(2) for k in range(3)]))
    assert (made.drawn, made.unsure, made.extra) == (drawn, unsure, extra) and unsure > 0


@pytest.mark.parametrize("model", [Toned(LABELS), Tones(THIRDS)], ids=["conditional", "classifies"])
def test_the_images_do_not_depend_on_the_batch_size(model):
    whole, parts = (synthesize(model, 12, seed=3, batch_size=size) for size in (64, 5))
    assert torch.equal(whole.images, parts.images) and torch.equal(whole.label, parts.label)
    assert (whole.drawn, whole.unsure, whole.extra) == (parts.drawn, parts.unsure, parts.extra)
    assert not torch.equal(synthesize(Tones(THIRDS), 12, seed=4).images, synthesize(Tones(THIRDS), 12, seed=3).images)


def test_only_the_chosen_classes_are_drawn():
    assert synthesize(Toned(LABELS), 4, classes=[2, 0]).label.tolist() == [0, 2, 0, 2]
    assert synthesize(Tones(THIRDS), 4, classes=[1]).label.tolist() == [1] * 4


def test_a_conditional_model_with_a_classifier_keeps_only_samples_of_the_class_that_was_asked_for():
    class Unsure(Tones):
        conditional = True

    made = synthesize(Unsure(THIRDS), 9, least_probability=0.5)  # it ignores the class that it is asked for
    assert torch.equal(made.label, ((tones(made.images) + 1) / 2 * 3).long().clamp(max=2))
    assert made.drawn == 9 + made.unsure + made.extra and made.unsure > 0


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (DCGAN(DataSpec((1, 16, 16)), width=2), {}, "Samples of DCGAN have no class.*ConditionalGAN.*SemiSupervised"),
        (Toned(CAPTIONS), {}, "Samples of Toned have no class"),
        (Tones(DataSpec((2,), "label", THIRDS.classes)), {}, "points of 2 numbers"),
        (Toned(LABELS), {"n": 10}, "10 images cannot be divided evenly among 3 classes"),
        (Toned(LABELS), {"least_probability": 0.5}, "Toned cannot classify its samples"),
        (Tones(THIRDS), {"sampling": {"most": 0.6}}, "contain only 0 images of class `bright`; 2 were needed"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(model, options, message):
    with pytest.raises(UserError, match=message):
        synthesize(model, **{"n": 6} | options)


def test_the_models_that_the_error_names_are_accepted():
    spec = DataSpec((1, 16, 16), "label", ("a", "b"))
    for model in (ConditionalGAN(spec, width=2), ConditionalVAE(spec, width=2), SemiSupervisedGAN(spec, width=2),
                  PixelCNN(spec, by_class=True, width=4)):  # fmt: skip
        augmentation.refuse_without_classes(model.eval())
    with pytest.raises(UserError, match="PixelCNN or VQPrior with `--model.by_class true`"):
        augmentation.refuse_without_classes(PixelCNN(spec, width=4))


def test_an_auxiliary_classifier_is_asked_for_the_probability_of_the_class():
    model = ConditionalGAN(DataSpec((1, 16, 16), "label", ("a", "b")), "auxiliary", latent_dim=4, width=2).eval()
    assert synthesize(model, 8, least_probability=0.01).label.tolist() == [0, 1] * 4
    with pytest.raises(UserError, match="contain only 0 images of class `a` with a probability of at least 0.9999"):
        synthesize(model, 8, least_probability=0.9999)
    with pytest.raises(UserError, match="ConditionalGAN cannot classify its samples"):
        synthesize(ConditionalGAN(model.spec, latent_dim=4, width=2).eval(), 8, least_probability=0.5)


def test_names_of_folders_are_different_and_safe():
    assert augmentation.folder_names(("T-shirt/top", "..", "a b")) == ["T-shirt-top", "--", "a b"]
    assert augmentation.folder_names(("a/b", "A-b")) == ["0 a-b", "1 A-b"]


# ---- classifiers ----------------------------------------------------------------------------------------------------


def pairs(images, labels):
    return {(image.numpy().tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def test_the_labels_are_those_of_a_semi_supervised_run():
    for seed in (0, 1):
        data = Digits(split_seed=seed)
        rows = labeled_rows(data, 50)
        loader = iter(Digits(split_seed=seed, labeled=50, batch_size=50).train_dataloader())
        batch = next(loader)  # one epoch of the labeled images
        chosen = data.source("train").batch(rows)
        assert chosen.label.bincount().tolist() == [5] * 10
        known = {
            (image.numpy().tobytes(), int(k)) for image, k in zip(batch.known_image, batch.known_label, strict=True)
        }
        assert known == {
            (image.numpy().tobytes(), int(k)) for image, k in zip(from_uint8(chosen.image), chosen.label, strict=True)
        }
    assert not torch.equal(rows, labeled_rows(Digits(), 50))
    assert torch.equal(labeled_rows(data, None), torch.arange(1350))


def test_the_labels_are_those_of_a_run_on_a_subset():
    """A conditional model trained with `data.subset` and a semi-supervised one with `data.labeled`: the same images."""
    whole, small = Digits(), Digits(subset=50)
    assert torch.equal(
        whole.source("train").batch(labeled_rows(whole, 50)).image, small.source("train").everything.image
    )


def test_more_labels_than_there_are_is_an_error():
    for count, message in ((2000, "The number of labels is 2000, 200 of each class, but class"), (15, "is 15, which")):
        with pytest.raises(UserError, match=message):
            labeled_rows(Digits(), count)
    with pytest.raises(UserError, match="Shapes has no labels"):
        labeled_rows(Shapes(target="caption"), 10)


def test_a_batch_of_both_has_equal_parts_and_all_classifiers_see_the_same_number_of_images(monkeypatch):
    seen = []

    def train(net, batches, steps, generator):
        seen.append([(float((x[:, 0, 0, 0] > 0).float().mean()), len(x), len(label)) for x, label in batches])
        assert len(seen[-1]) == steps
        return net.eval()

    monkeypatch.setattr(augmentation.classifier, "train", train)
    real = MemorySource(Batch(torch.zeros(10, 1, 8, 8, dtype=torch.uint8), label=torch.arange(10)))
    drawn = MemorySource(Batch(torch.full((300, 1, 8, 8), 255, dtype=torch.uint8), label=torch.arange(300) % 10))
    for sources in ([real], [drawn], [real, drawn]):
        train_classifier(sources, 10, 640)
    assert seen == [[(0.0, 128, 128)] * 5, [(1.0, 128, 128)] * 5, [(0.5, 128, 128)] * 5]


def test_a_classifier_follows_from_its_seed_and_leaves_the_random_state_alone():
    source, before = Digits(size=8).source("train"), torch.random.get_rng_state()
    a, b, c = (state_hash(train_classifier([source], 10, 256, seed=seed).state_dict()) for seed in (0, 0, 1))
    assert a == b != c and torch.equal(before, torch.random.get_rng_state())


def test_the_score_is_high_for_real_images_as_synthetic_and_low_for_wrong_labels():
    data = Digits(size=8)
    train = data.source("train").everything
    scores = {}
    for name, label in (("right", train.label), ("wrong", (train.label + 1) % 10)):
        found = classification_accuracy(data, Synthetic(train.image, label, 0), [20], images=4000, seeds=[0])
        scores[name] = {(one.labels, one.on): one.mean for one in found}
    assert scores["right"][None, "synthetic"] > 0.8 and scores["wrong"][None, "synthetic"] < 0.1
    assert scores["right"][20, "both"] > scores["right"][20, "real"] > 0.2
    assert scores["right"][20, "real"] == scores["wrong"][20, "real"]


def test_synthetic_images_of_another_shape_are_an_error():
    with pytest.raises(UserError, match=r"shape \[1, 4, 4\], but Digits has \[1, 32, 32\]"):
        classification_accuracy(Digits(), synthesize(Toned(LABELS), 3), [10], images=128, seeds=[0])


def test_the_spread_is_the_standard_deviation_over_the_seeds():
    assert Trained(10, "real", [0.1, 0.2, 0.6]).std == pytest.approx(0.2645751311)  # sqrt(0.14 / 2)
    assert Trained(10, "real", [0.1]).std is None
