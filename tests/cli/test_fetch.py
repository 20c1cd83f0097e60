"""What is needed later is brought ahead of time, and what is there is told."""

import pytest
import torch

from genbench.evaluation import extractor_weights


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No weights in torch's cache, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def refuse(url, target, **more):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def test_without_a_name_it_lists_what_is_there_and_what_is_missing(cli, tmp_path):
    file = extractor_weights.PUBLISHED["inception"][0]
    (tmp_path / "root" / "extractors").mkdir(parents=True)
    (tmp_path / "root" / "extractors" / file).write_bytes(b"weights")
    status, out, _ = cli("fetch", "--root", tmp_path / "root")
    assert status == 0
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert "there:" in rows["inception"] and file in rows["inception"]
    assert "missing" in rows["dinov2"] and "missing" in rows["MNIST"] and "missing" in rows["CelebA"]


def test_it_fetches_only_what_is_missing(cli, tmp_path, monkeypatch):
    asked = []

    def download(url, target, **more):
        asked.append((url, more["hash_prefix"]))
        with open(target, "wb") as file:
            file.write(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        status, out, _ = cli("fetch", "inception", "--root", tmp_path / "root")
        assert status == 0 and "there: " in out
    file, source, prefix = extractor_weights.PUBLISHED["inception"]
    assert asked == [(source + file, prefix)]


def test_a_failed_download_is_named_with_source_and_place_and_the_others_are_tried(cli, tmp_path):
    status, out, err = cli("fetch", "inception", "dinov2", "--root", tmp_path / "root")
    assert status == 2 and "Traceback" not in err
    for name in ("inception", "dinov2"):
        file, source, _ = extractor_weights.PUBLISHED[name]
        assert f"{source}{file}" in err and str(tmp_path / "root" / "extractors" / file) in err


def test_an_unknown_name_lists_the_known_ones(cli):
    status, _, err = cli("fetch", "MNITS")
    assert status == 2 and "'MNITS'" in err and "MNIST" in err and "inception" in err
