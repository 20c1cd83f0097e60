"""A user's metrics and extractors work like built-in ones, and errors in them do not affect other scores."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from genbench.core.errors import UserError
from genbench.core.importing import import_module
from genbench.data import Digits, Shapes
from genbench.evaluation import extractors
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.evaluator import Held
from genbench.evaluation.evaluators import expected
from genbench.evaluation.images import SplitImages, TensorImages
from genbench.models import VAE, UNet
from tests.helpers.abilities import (
    SMALL,
    Coder,
    Independent,
    Namer,
    Obedient,
    Segmenter,
    assert_same,
    untimed,
    values,
)
from tests.helpers.processes import two_processes
from tests.helpers.registry import own_metrics

NOISE = TensorImages(
    "noise", torch.randint(0, 256, (70, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
)
ON_SAMPLES = ("own_brightness", "own_order", "own_feature_mean")
WRONG = {
    "own_nan": "`compute` returned nan",
    "own_two": "`compute` returned a tensor of shape [2]; expected one number",
    "own_text": "`compute` returned str; expected one number",
    "own_far": "`compute` returned 7, outside of its range 0 to 1",
    "own_failure": "IndexError: there is no such row",
    "own_early_failure": "ValueError: 16 are too many",
    "own_unmade": "no weights",
}


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Registers the metrics of a module, and unregisters them after these tests."""
    with own_metrics() as module:
        yield module


def small(*metrics):
    return replace(SMALL, metrics=metrics)


def on_noise(extractor):
    return evaluate(NOISE, Digits(size=16), small("fid", *ON_SAMPLES, *WRONG), extractor=extractor)


def test_update_receives_the_inputs_that_its_parameters_name(extractor):
    record = on_noise(extractor)
    found, reference = values(record), SplitImages(Digits(size=16).reference(), "test", 100)
    real = reference.images(torch.arange(100))
    shown = extractors.in_channels(NOISE.all, 1)
    shown = torch.nn.functional.interpolate(shown.float(), (8, 8)) if reference.shape[1] == 8 else shown
    assert found["own_brightness"] >= 0 and found["own_order"] > 0
    features = extractor(real)[0].mean(0)
    assert record.metrics["own_feature_mean-digitsnet"]["n"] == 70 and features.shape == (128,)
    if reference.shape == NOISE.shape:
        means = NOISE.all.double().flatten(1).mean(1)
        assert found["own_brightness"] == pytest.approx((means.mean() - real.double().mean()).abs().item())
        assert found["own_order"] == pytest.approx((means * torch.arange(70)).sum().item())
        distance = (extractor(NOISE.all)[0].mean(0) - features).norm().item()
        assert found["own_feature_mean-digitsnet"] == pytest.approx(distance, rel=1e-5)


def test_a_score_has_the_direction_range_and_track_of_its_class(extractor):
    entry = on_noise(extractor).metrics["own_brightness"]
    assert (entry["better"], entry["low"], entry["high"], entry["track"]) == ("lower", 0, None, "generation")


def test_a_failing_metric_is_blank_with_the_reason_and_the_others_are_kept(extractor):
    record = on_noise(extractor)
    for name, note in WRONG.items():
        entry = record.metrics[name]
        assert entry["value"] is None and entry["note"].startswith(note), entry
    assert "own_metrics.py, line" in record.metrics["own_failure"]["note"]
    assert record.metrics["fid-digitsnet"]["value"] > 0 and record.metrics["own_order"]["value"] > 0


def test_the_labels_that_a_conditional_model_was_given_reach_a_metric(extractor):
    found = values(evaluate(Obedient(Digits().spec), Digits(), small("classes", "own_label_hits"), extractor=extractor))
    assert found["own_label_hits-digitsnet"] == found["class_accuracy-digitsnet"] > 0.9
    entries = evaluate(
        NOISE, Digits(size=16), small("fid", "own_label_hits", "own_labels"), extractor=extractor
    ).metrics
    for name in ("own_label_hits-digitsnet", "own_labels"):
        assert entries[name]["note"] == "needs labels, which are not available here"


def test_the_metrics_of_genbench_come_first_in_a_record_and_rank_by_default(extractor):
    for subject, metrics in ((Coder(Digits().spec), ("own_uqi", "reconstruction")), (NOISE, ("own_order", "fid"))):
        found = list(evaluate(subject, Digits(size=16), small(*metrics), extractor=extractor).metrics)
        assert found[0] in ("mse", "fid-digitsnet") and found.index(metrics[0]) > 0


def test_reconstructions_and_translations_reach_a_metric_of_torchmetrics(extractor):
    found = values(evaluate(Coder(Digits().spec), Digits(), small("reconstruction", "own_uqi"), extractor=extractor))
    assert found["own_uqi"] == pytest.approx(1, abs=0.02)
    data = Shapes(size=16, target="none", task="denoise", train_images=20, val_images=12, test_images=20)
    model = UNet(data.spec, width=2, depth=1).eval()
    found = values(evaluate(model, data, small("own_difference"), extractor=extractor))
    assert set(found) == {"own_difference"} and -2 < found["own_difference"] < 2


def test_likelihoods_masks_and_labels_reach_a_metric(extractor):
    digits, shapes = Digits(), Shapes(size=16, target="mask", train_images=20, val_images=12, test_images=40)
    found = values(
        evaluate(Independent(digits.spec), digits, small("likelihood", "own_worst_nats"), extractor=extractor)
    )
    assert found["own_worst_nats"] < found["nats"]
    found = values(evaluate(Segmenter(shapes.spec).learn(shapes), shapes, small("own_foreground"), extractor=extractor))
    masks = SplitImages(shapes.reference(), "test", 100).target("mask")
    assert found["own_foreground"] == pytest.approx((masks > 0).double().mean().item())
    model = Namer(digits.reference().spec).learn(digits.reference())
    found = values(evaluate(model, digits, small("own_label_mean"), extractor=extractor))
    labels = SplitImages(digits.reference(), "test", 100).label
    assert found["own_label_mean"] == pytest.approx(labels.double().mean().item())


@pytest.mark.parametrize("metrics", [("own_uqi", "own_brightness"), ("fid", "own_feature_mean", "own_worst_nats")])
def test_validation_expects_the_scores_that_it_computes(extractor, metrics):
    data = Digits(size=16, subset=40, val_size=12)
    protocol = replace(SMALL, metrics=metrics, split="val", generated=12, real=12)
    model = VAE(data.spec, latent_dim=2, width=2).eval()
    expected_scores = expected(model, data, protocol, extractor, Held(12, label=torch.zeros(12, dtype=torch.long)))
    found = values(evaluate(model, data, protocol, extractor=extractor))
    assert {name for name, why in expected_scores.items() if why is None} == {
        n for n, v in found.items() if v is not None
    }


# ---- several processes ----------------------------------------------------------------------------------------------


def worker(rank, folder):
    import torch.distributed as dist

    torch.set_num_threads(1)
    import_module("tests.helpers.own_metrics", "--import")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    extractor = extractors.build("digitsnet")
    os.environ["GENBENCH_CACHE"] = f"{folder}/cache"
    data = Digits()
    coder = evaluate(Coder(data.spec), data, small("reconstruction", "own_uqi"), extractor=extractor)
    namer = Namer(data.reference().spec).learn(data.reference())
    labels = evaluate(namer, data, small("classes", "own_label_mean"), extractor=extractor)
    torch.save([untimed(record)["metrics"] for record in (on_noise(extractor), coder, labels)], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_same_scores_as_one(tmp_path, extractor):
    two_processes("tests.evaluation.test_own_metrics", tmp_path)
    data = Digits()
    namer = Namer(data.reference().spec).learn(data.reference())
    alone = [
        on_noise(extractor),
        evaluate(Coder(data.spec), data, small("reconstruction", "own_uqi"), extractor=extractor),
        evaluate(namer, data, small("classes", "own_label_mean"), extractor=extractor),
    ]
    for rank in range(2):
        for one, two in zip(alone, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            assert_same(untimed(one)["metrics"], two)


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_the_key_depends_on_the_source_of_an_own_metric_only_if_one_is_used(
    extractor, monkeypatch, tmp_path, registered
):
    protocol = small("fid", "own_brightness")
    first = evaluate(NOISE, Digits(size=16), protocol, extractor=extractor).protocol
    assert len(first["own_metrics"]) == 16
    copy = tmp_path / "other.py"
    copy.write_text(Path(registered.__file__).read_text() + "# another version\n")
    monkeypatch.setattr("genbench.core.importing.inspect.getfile", lambda cls: str(copy))
    assert evaluate(NOISE, Digits(size=16), protocol, extractor=extractor).protocol["key"] != first["key"]
    assert "own_metrics" not in evaluate(NOISE, Digits(size=16), small("fid"), extractor=extractor).protocol


# ---- extractors -----------------------------------------------------------------------------------------------------

MODULE = """
import torch
from torch import nn

class Coarse(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LazyLinear(3) if False else nn.Linear(4, 3)
    def forward(self, images):
        return self.layer(nn.functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), 2).flatten(1))

class Names(Coarse):
    classes = ("dark", "bright", "red")
    def forward(self, images):
        features = super().forward(images)
        return features, features

class Needy(nn.Module):
    def __init__(self, width):
        super().__init__()

class Growing(nn.Module):
    calls = 0
    def forward(self, images):
        self.calls += 1
        return torch.zeros(len(images), 2 + (self.calls > 1))

class Flat(nn.Module):
    def forward(self, images):
        return torch.zeros(len(images))

class Listing(nn.Module):
    def forward(self, images):
        return [0.0] * len(images)

class Three(nn.Module):
    def forward(self, images):
        return torch.zeros(len(images), 2), None, None

class Nothing(nn.Module):
    def forward(self, images):
        pass

class Empty(nn.Module):
    def forward(self, images):
        return torch.zeros(len(images), 0)

class WithoutLogits(Coarse):
    classes = ("dark", "bright", "red")

class OtherClasses(Names):
    classes = ("dark", "bright")

class Random(nn.Module):
    def forward(self, images):
        return torch.rand(len(images), 4)

class Failing(nn.Module):
    def forward(self, images):
        return self.helper(images)
    def helper(self, images):
        return images.nothing

class FailingEarly(nn.Module):
    def __init__(self):
        super().__init__()
        raise OSError("no file of weights")

class WithoutForward(nn.Module):
    pass

number = 7
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_networks.py").write_text(MODULE)
    yield tmp_path / "own_networks.py"
    sys.modules.pop("own_networks", None)


def test_a_network_of_the_users_is_an_extractor_whose_name_its_scores_have(module):
    extractor = extractors.build("own_networks:Coarse")
    features, logits = extractor(NOISE.all)
    pooled = nn.functional.adaptive_avg_pool2d(NOISE.all.float(), 2).flatten(1)
    torch.testing.assert_close(features, extractor.network.layer(pooled))
    assert logits is None and extractor.score("fid") == "fid-Coarse"
    assert extractors.build("own_networks:Coarse").hash == extractor.hash  # its random weights have a fixed seed
    record = evaluate(NOISE, Digits(size=16), small("fid").changed(extractor="own_networks:Coarse"))
    assert record.metrics["fid-Coarse"]["value"] > 0 and record.protocol["extractor"]["hash"] == extractor.hash


def test_logits_and_names_of_classes_make_scores_of_classes(module):
    found = values(evaluate(NOISE, Digits(size=16), small("classes", "is").changed(extractor="own_networks:Names")))
    assert {"modes-Names", "is-Names"} <= set(found)


def test_another_source_makes_another_hash(module):
    first = extractors.build("own_networks:Coarse").hash
    module.write_text(MODULE.replace("2).flatten(1))", "2).flatten(1) / 255)"))
    sys.modules.pop("own_networks")
    assert extractors.build("own_networks:Coarse").hash != first


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_networks:Needy", "requires width. Give defaults to its arguments"),
        ("own_networks:Absent", "own_networks has no nn.Module class 'Absent'"),
        ("own_networks:number", "own_networks has no nn.Module class 'number'"),
        ("nowhere:Net", "No module named 'nowhere'"),
        ("a b:Net", "'a b' is not the name of a module"),
    ],
)
def test_an_invalid_extractor_is_an_error(module, name, said):
    with pytest.raises(UserError, match=said):
        extractors.build(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_networks:Growing", "'Growing' returned 3 features per image, but 2 before"),
        (
            "own_networks:Flat",
            r"'Flat' returned features of shape \[2\] for 2 images; expected a tensor of shape \[2, number of f",
        ),
        ("own_networks:Listing", "'Listing' returned features as list for 2 images"),
        ("own_networks:Three", "'Three' returned a tuple of 3. Return features, or features and logits"),
        ("own_networks:Nothing", "'Nothing' returned features as NoneType"),
        ("own_networks:Empty", r"'Empty' returned features of shape \[2, 0\] for 2 images"),
        ("own_networks:WithoutLogits", "'WithoutLogits' returned logits as NoneType"),
        ("own_networks:OtherClasses", "'OtherClasses' names 2 classes but returned 3 logits per image"),
        ("own_networks:Random", "'Random' returned different features for the same images"),
        ("own_networks:WithoutForward", "'WithoutForward' failed"),
    ],
)
def test_features_of_a_wrong_or_changing_shape_are_errors(module, name, said):
    with pytest.raises(UserError, match=said):
        evaluate(NOISE, Digits(size=16), small("fid").changed(extractor=name))


def test_a_network_that_fails_shows_its_own_traceback_below_one_sentence(module):
    with pytest.raises(UserError) as caught:
        evaluate(NOISE, Digits(size=16), small("fid").changed(extractor="own_networks:Failing"))
    first, *rest = str(caught.value).splitlines()
    assert first == "The extractor 'Failing' failed." and rest[-1].startswith("AttributeError: 'Tensor' object has no")
    files = [line for line in rest if line.startswith("  File")]
    assert len(files) == 2 and all("own_networks.py" in line for line in files)
    with pytest.raises(UserError, match="(?s)FailingEarly failed while it was made.*OSError: no file of weights"):
        extractors.build("own_networks:FailingEarly")


def test_a_wrong_network_is_rejected_before_training(module, tmp_path):
    data = Digits(size=16, subset=40, val_size=12)
    model, protocol = VAE(data.spec, latent_dim=2, width=2), replace(SMALL, metrics=("fid",), split="val")
    with pytest.raises(UserError, match="'Growing' returned 3 features per image, but 2 before"):
        expected(model, data, protocol, extractors.build("own_networks:Growing"), Held(12))


# ---- modules --------------------------------------------------------------------------------------------------------


def test_a_module_that_fails_shows_its_own_traceback_below_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing.py").write_text("def broken():\n    return 1 / 0\n\n\nbroken()\n")
    with pytest.raises(UserError) as caught:
        import_module("failing", "--import")
    first, *rest = str(caught.value).splitlines()
    assert first == "--import failing: importing the module failed."
    assert rest[0] == "Traceback (most recent call last):" and rest[-1] == "ZeroDivisionError: division by zero"
    assert 'failing.py", line 5' in rest[1] and not any("importlib" in line or "importing.py" in line for line in rest)


def test_a_failing_import_inside_a_users_module_is_reported_as_its_failure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "needing.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(UserError, match="(?s)needing: importing .* failed.*No module named 'nowhere_to_be_found'"):
        import_module("needing", "--import")
