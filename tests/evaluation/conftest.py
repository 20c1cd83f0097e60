import pytest

from genbench.evaluation import extractors


@pytest.fixture(scope="session")
def extractor():
    return extractors.build("digitsnet")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty cache folder for features. Returns the folder."""
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def calls(extractor, monkeypatch):
    """The number of images in each call of any extractor."""
    found, call = [], type(extractor).__call__
    monkeypatch.setattr(
        type(extractor), "__call__", lambda self, images: (found.append(len(images)), call(self, images))[1]
    )
    return found
