"""Scores by class against scikit-learn, SciPy, and the Fréchet distance of each class alone."""

import math

import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import accuracy_score

from genbench.core.batch import to_tokens
from genbench.core.errors import UserError
from genbench.data.shapes import CAPTION_LENGTH, CAPTIONS, VOCABULARY
from genbench.metrics.classes import caption_classes, class_accuracy, class_frechet_distance, class_statistics
from genbench.metrics.frechet import feature_moments, frechet_distance


def test_statistics_are_the_number_of_classes_and_the_entropy_of_their_fractions():
    logits = torch.randn(300, 12)
    logits[:, 4:6] = -100
    counts = logits.argmax(1).bincount(minlength=12)
    assert class_statistics(logits) == pytest.approx(
        {"modes": 10, "class_entropy": entropy(counts.numpy()), "mode_kl": entropy(counts.numpy(), torch.ones(12))}
    )


def test_collapse_has_one_mode_and_zero_entropy_and_uniform_classes_have_the_most():
    collapsed = {"modes": 1, "class_entropy": 0, "mode_kl": math.log(5)}
    assert class_statistics(torch.eye(5)[:1].repeat(9, 1)) == collapsed
    assert class_statistics(torch.eye(5)) == pytest.approx({"modes": 5, "class_entropy": math.log(5), "mode_kl": 0})


def test_accuracy_equals_scikit_learns():
    logits, labels = torch.randn(50, 3), torch.randint(3, (50,))
    assert class_accuracy(logits, labels) == pytest.approx(accuracy_score(labels, logits.argmax(1)))


def test_distance_is_the_mean_over_classes():
    fake, real = torch.randn(90, 4), 2 * torch.randn(120, 4)
    fake_labels, real_labels = torch.arange(90) % 3 + 5, torch.arange(120) % 3 + 5
    each = [frechet_distance(*feature_moments(fake[c::3]), *feature_moments(real[c::3])).item() for c in range(3)]
    assert class_frechet_distance(fake, fake_labels, real, real_labels) == pytest.approx(sum(each) / 3, rel=1e-10)


def test_distance_detects_swapped_classes_that_the_whole_set_hides():
    labels = torch.arange(200) % 2
    real, fake = (torch.randn(200, 3) + 10 * labels[:, None] for _ in range(2))
    assert (
        class_frechet_distance(fake, labels, real, labels)
        < 1
        < 100
        < class_frechet_distance(fake, 1 - labels, real, labels)
    )


def test_a_class_with_too_few_images_is_an_error():
    labels = torch.tensor([0, 0, 0, 7, 7])
    with pytest.raises(UserError, match="class 7 has 2 generated and 0 real images"):
        class_frechet_distance(torch.randn(5, 2), labels, torch.randn(3, 2), labels[:3])


WORDS = ("<pad>", "a", "red", "blue", "circle", "star")


def test_a_caption_names_the_class_all_of_whose_words_it_has_in_any_order():
    classes = ("circle red", "circle blue", "star red", "moon red")
    captions = torch.tensor([[1, 2, 4, 0], [3, 4, 0, 0], [5, 1, 2, 2]])  # the second: "blue circle"
    assert caption_classes(captions, WORDS, classes).tolist() == [0, 1, 2]


def test_a_caption_that_names_no_class_or_two_is_quoted():
    classes = ("circle red", "star red")
    for caption, said in (([1, 3, 4], "`a blue circle` names none"), ([2, 4, 5], "names `circle red` and `star red`")):
        with pytest.raises(UserError, match=said):
            caption_classes(torch.tensor([[1, 2, 4], caption]), WORDS, classes)
    with pytest.raises(UserError, match="names none"):
        caption_classes(torch.tensor([[1, 2, 4]]), WORDS, ())


def test_no_images_are_an_error():
    for score in (
        lambda: class_statistics(torch.zeros(0, 3)),
        lambda: class_accuracy(torch.zeros(0, 3), torch.zeros(0)),
    ):
        with pytest.raises(UserError, match="at least 1"):
            score()


def test_captions_that_are_classes_name_themselves():
    """The words of "a small red star at the top" also occur in the captions of the corners."""
    chosen = ("a small red star at the top", "a small red star at the top left", "a large blue cross in the centre")
    tokens = torch.tensor([to_tokens(caption, VOCABULARY, CAPTION_LENGTH) for caption in chosen])
    assert [CAPTIONS[k] for k in caption_classes(tokens, VOCABULARY, CAPTIONS).tolist()] == list(chosen)
