"""A file is written whole or not at all."""

import pytest

from genbench.core.files import replacing


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"good")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half of a ne")
        raise ZeroDivisionError
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]
