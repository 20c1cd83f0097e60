"""A protocol contains everything that a score depends on. A changed setting gives a new name and key."""

from dataclasses import asdict, fields, replace

import pytest
import yaml

from genbench.core.errors import UserError
from genbench.evaluation import extractors, protocol
from genbench.evaluation.protocol import PREPARATION, Protocol
from genbench.metrics.scales import GROUPS, SCALES

OTHER = {
    "split": "val", "real": 7, "generated": 7, "extractor": "inception", "weights": "raw", "seed": 7,
    "metrics": ("fid",), "block": 7, "kid_subsets": 7, "kid_subset_size": 7, "is_splits": 7, "score_seed": 7,
    "neighbors_k": 7, "neighbors_images": 7, "train": 7, "pixels": "binary", "filter": "another",
    "size": 7, "channels": 3, "resize_mode": "pad", "enlarge": True,
}  # fmt: skip
SHIPPED = ("fid10k-test", "fid2k-test", "fid50k-train", "fid5k-random", "quick")


def key(settings, **facts):
    return settings.resolved(**facts)["key"]


@pytest.mark.parametrize("field", [f.name for f in fields(Protocol) if f.name != "name"])
def test_the_key_depends_on_every_setting(field):
    plain = Protocol("a")
    assert OTHER[field] != getattr(plain, field)
    changed = object.__new__(Protocol)  # bypasses the checks, which allow only one filter
    changed.__dict__.update(vars(plain) | {field: OTHER[field]})
    assert key(changed) != key(plain)


def test_the_key_depends_on_the_resolved_settings_and_not_on_the_name():
    plain, reference = Protocol("a"), {"hash": "1"}
    assert key(plain) == key(Protocol("b")) == key(replace(plain, metrics=list(plain.metrics)))
    assert len({key(plain), key(plain, reference=reference), key(plain, reference={"hash": "2"})}) == 3


def test_what_is_resolved_holds_every_setting_as_plain_values():
    found = Protocol("a").resolved(reference={"hash": "1"})
    assert found == yaml.safe_load(yaml.safe_dump(found))
    assert found.keys() == (asdict(Protocol("a")).keys() | {"key", "reference"}) - set(PREPARATION)
    assert Protocol("a", size=32).resolved().keys() - found.keys() == {"size"}


def test_a_setting_that_older_records_lack_leaves_the_key_as_it_was_unless_it_is_used():
    assert key(Protocol("a")) == "16bce7f76b228064"
    assert key(Protocol("a", size=32)) == key(Protocol("b", size=32, resize_mode="crop")) != key(Protocol("a"))


def test_a_changed_setting_is_in_the_name():
    plain = protocol.load("fid10k-test")
    changed = plain.changed(generated=500, extractor="inception", metrics=("fid", "kid"))
    assert changed.name == "fid10k-test+extractor=inception+generated=500+metrics=fid/kid"
    assert (changed.generated, changed.metrics, changed.real) == (500, ("fid", "kid"), 10_000)
    assert changed.changed(seed=3).name == changed.name + "+seed=3"
    assert plain.changed(generated=10_000, seed=None) == plain == plain.changed()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_protocols_are_found_from_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert protocol.load(name).name == name
    assert set(SHIPPED) <= set(protocol.names())


def test_choosing_a_checkpoint_uses_neither_images_nor_samples_of_the_final_scores():
    quick = protocol.load("quick")
    for name in ("fid10k-test", "fid50k-train"):
        final = protocol.load(name)
        assert quick.split == "val" != final.split and quick.seed != final.seed


def test_every_score_of_a_group_has_a_scale():
    assert {score for scores in GROUPS.values() for score in scores} == set(SCALES)


def test_a_users_protocol_is_a_file(tmp_path, monkeypatch):
    text = "split: train\ngenerated: 50\nmetrics: [fid]\n"
    (tmp_path / "mine.yaml").write_text(text)
    expected = Protocol("mine", split="train", generated=50, metrics=("fid",))
    assert protocol.load(str(tmp_path / "mine.yaml")) == expected
    (tmp_path / "configs/protocols").mkdir(parents=True)
    (tmp_path / "configs/protocols/mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert protocol.load("mine") == expected and "mine" in protocol.names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kid_subset: 5", "unknown setting 'kid_subset'. Choose from: name, split, real"),
        ("metrics: [fid, beauty]", "unknown metric group 'beauty'. Choose from: fid, kid, is"),
        ("metrics: fid", "metrics is 'fid'; it must be a list of groups"),
        ("metrics: []", "metrics is (); it must be a list of groups"),
        ("metrics: 3", "metrics is 3; it must be a list of groups"),
        ("metrics: [[fid]]", "unknown metric group '['fid']'"),
        ("name: null", "name is None; expected a word"),
        ("split: all", "split is 'all'; it must be train, val or test"),
        ("weights: best", "weights is 'best'; it must be ema or raw"),
        ("pixels: 16-bit", "pixels is '16-bit'; it must be binary, 8-bit or density"),
        ("filter: nearest", "filter is 'nearest'; it must be bicubic, antialias"),
        ("generated: 0", "generated is 0; it must be a whole number of at least 1"),
        ("block: true", "block is True; it must be a whole number of at least 1"),
        ("real: 1e4", "real is 10000.0; it must be a whole number"),
        ("train: 0", "train is 0; it must be a whole number of at least 1"),
        ("neighbors_images: none", "neighbors_images is none; it must be a whole number of at least 1"),
        ("seed: -1", "seed is -1; it must be a whole number of at least 0"),
        ("score_seed: x", "score_seed is x; it must be a whole number of at least 0"),
        ("- fid", "contains a list; expected settings"),
        ("split: [", "is not YAML"),
    ],
)
def test_a_mistake_in_a_file_is_an_error_with_the_reason(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="mine") as error:
        protocol.load(str(path))
    assert message in str(error.value)


def test_an_unknown_name_is_an_error_with_the_known_names():
    with pytest.raises(
        UserError,
        match=r"Unknown protocol 'fid10k'. Choose from: fid10k-test, fid2k-test, fid50k-train, .*path of a YAML",
    ):
        protocol.load("fid10k")
    with pytest.raises(UserError, match="unknown metric group 'FID'. Choose from: fid, kid"):
        Protocol("a").changed(metrics=("FID",))
    with pytest.raises(
        UserError,
        match=r"Unknown extractor 'resnet'. Choose from: captionnet, digitsnet, mnistnet.*vgg-random.*, torchv",
    ):
        extractors.build("resnet")
