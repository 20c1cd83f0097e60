"""A user's metrics, one for each track and each kind of input; importing them registers them."""

import torch
from torchmetrics import MeanMetric, Metric
from torchmetrics.image import UniversalImageQualityIndex
from torchmetrics.utilities import dim_zero_cat

from genbench.metrics import register


class Kept(Metric):
    """Stores the values passed to `add`."""

    higher_is_better = False

    def __init__(self):
        super().__init__()
        self.add_state("fake", [], dist_reduce_fx="cat")
        self.add_state("true", [], dist_reduce_fx="cat")

    def add(self, values, real):
        (self.true if real else self.fake).append(values)


@register
class Brightness(Kept):
    """Difference of the mean brightness, of images block by block."""

    name, track = "own_brightness", "generation"
    plot_lower_bound = 0.0

    def update(self, images, real):
        assert images.dtype == torch.uint8
        self.add(images.double().flatten(1).mean(1), real)

    def compute(self):
        return (dim_zero_cat(self.fake).mean() - dim_zero_cat(self.true).mean()).abs()


@register
class Order(Kept):
    """Depends on the order of images: the sum of each generated image's brightness times its position."""

    name, track = "own_order", "generation"

    def update(self, imgs):
        self.add(imgs.double().flatten(1).mean(1), False)

    def compute(self):
        values = dim_zero_cat(self.fake)
        return (values * torch.arange(len(values))).sum()


@register
class FeatureMean(Kept):
    """Distance of the mean features."""

    name, track = "own_feature_mean", "generation"

    def update(self, features, real):
        self.add(features, real)

    def compute(self):
        return (dim_zero_cat(self.fake).mean(0) - dim_zero_cat(self.true).mean(0)).norm()


@register
class LabelHits(Kept):
    """How often the extractor's classifier finds the label that the model was given."""

    name, track, higher_is_better = "own_label_hits", "generation", True
    plot_lower_bound, plot_upper_bound = 0.0, 1.0

    def update(self, logits, labels):
        self.add((logits.argmax(1) == labels).double(), False)

    def compute(self):
        return dim_zero_cat(self.fake).mean()


@register
class Labels(MeanMetric):
    """Mean label of the images, block by block."""

    name, track, higher_is_better = "own_labels", "generation", True

    def update(self, images, labels):
        super().update(labels.double())


@register
class UQI(UniversalImageQualityIndex):
    name, track = "own_uqi", "reconstruction"


@register
class Difference(MeanMetric):
    """Mean signed difference, of translations."""

    name, track, higher_is_better = "own_difference", "translation", False

    def update(self, made, target):
        super().update(made - target)


@register
class WorstLikelihood(Kept):
    name, track, higher_is_better = "own_worst_nats", "likelihood", True

    def update(self, nats):
        self.add(nats, False)

    def compute(self):
        return dim_zero_cat(self.fake).min()


@register
class Foreground(MeanMetric):
    """Fraction of pixels that are not classified as background."""

    name, track, higher_is_better = "own_foreground", "segmentation", True

    def update(self, logits, mask):
        super().update((logits.argmax(1) > 0).double())


@register
class LabelMean(MeanMetric):
    name, track, higher_is_better = "own_label_mean", "classification", True

    def update(self, logits, label):
        super().update(label.double())


class Wrong(Kept):
    track, plot_lower_bound, plot_upper_bound = "generation", 0.0, 1.0

    def update(self, images):
        self.add(images[:, 0, 0, 0].double(), False)


@register
class GivesNaN(Wrong):
    name = "own_nan"

    def compute(self):
        return torch.tensor(torch.nan)


@register
class GivesTwo(Wrong):
    name = "own_two"

    def compute(self):
        return torch.zeros(2)


@register
class GivesText(Wrong):
    name = "own_text"

    def compute(self):
        return "much"


@register
class OutOfRange(Wrong):
    name = "own_far"

    def compute(self):
        return 7.0


@register
class FailsLate(Wrong):
    name = "own_failure"

    def compute(self):
        raise IndexError("there is no such row")


@register
class FailsEarly(Wrong):
    name = "own_early_failure"

    def update(self, images):
        raise ValueError(f"{len(images)} are too many")

    def compute(self):
        return 0.0


@register
class CannotBeMade(Wrong):
    name = "own_unmade"

    def __init__(self):
        raise OSError("no weights")

    def compute(self):
        return 0.0
