"""A user's metric is registered if its attributes are complete and valid; otherwise it is an error."""

import math

import pytest
from torchmetrics import MeanMetric

from genbench.core.errors import UserError
from genbench.metrics import register, scale
from genbench.metrics.registry import REGISTERED
from genbench.metrics.scales import SCALES, Scale
from tests.helpers.registry import restored_registry


@pytest.fixture(autouse=True)
def registry():
    with restored_registry():
        yield


def declared(update=lambda self, images: None, **attributes):
    whole = {"name": "mine", "track": "generation", "higher_is_better": True, "update": update}
    return type("Mine", (MeanMetric,), {k: v for k, v in (whole | attributes).items() if v != "left out"})


def test_a_metric_has_the_scale_of_its_attributes():
    cls = declared(plot_lower_bound=0.0, higher_is_better=False)
    assert register(cls) is cls and REGISTERED["mine"] is cls
    assert scale("mine-digitsnet") == Scale("lower", 0, math.inf, "generation")


def test_a_module_that_is_imported_again_registers_its_metric_again():
    register(declared())
    again = declared()
    register(again)
    assert REGISTERED["mine"] is again


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"name": "left out"}, "has the name None; it must consist of"),
        ({"name": "Mine-2"}, "has the name 'Mine-2'; it must consist of lowercase letters"),
        ({"track": "left out"}, "has the track None. Choose from: generation, reconstruction"),
        ({"track": "generations"}, "Did you mean 'generation'?"),
        ({"track": ["generation"]}, "has the track"),
        ({"higher_is_better": "left out"}, "must set `higher_is_better` to True or False"),
        ({"higher_is_better": "yes"}, "must set `higher_is_better`"),
        ({"name": "fid"}, "has the name fid, which a metric of genbench already has. Choose a different"),
        ({"name": "neighbors"}, "has the name neighbors, which a metric of genbench already has"),
        (
            {"plot_lower_bound": 1.0, "plot_upper_bound": 0.0},
            r"plot_lower_bound \(1\) must be less than plot_upper_bound \(0\)",
        ),
        (
            {"update": lambda self, x, y: None},
            r"has update\(x, y\). On the track generation, `update` must take either",
        ),
        ({"update": lambda self, images, features: None}, "must take either `images`, or `features`"),
        ({"update": lambda self, real: None}, "must take either `images`, or `features`"),
        (
            {"track": "likelihood", "update": lambda self, a, b: None},
            "`update` must take 1 parameters, for log_likelihood",
        ),
        ({"track": "reconstruction"}, "`update` must take 2 parameters, for reconstruction and image"),
        ({"__init__": lambda self, width: None}, "has the required arguments width. Set defaults in a subclass"),
    ],
)
def test_missing_or_invalid_attributes_are_rejected(attributes, said):
    before = dict(SCALES)
    with pytest.raises(UserError, match=said):
        register(declared(**attributes))
    assert before == SCALES and "mine" not in REGISTERED


def test_a_class_that_is_not_a_metric_is_rejected():
    with pytest.raises(UserError, match="Plain must be a subclass of torchmetrics.Metric"):
        register(type("Plain", (), {"name": "mine"}))


def test_two_metrics_with_the_same_name_are_rejected():
    register(declared())
    other = declared()
    other.__qualname__ = "Other"
    with pytest.raises(UserError, match="Other has the name mine, which a metric of .*Mine already has. Choose"):
        register(other)
