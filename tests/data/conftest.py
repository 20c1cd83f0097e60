import zipfile

import pytest
from PIL import Image

SIZE = 8


@pytest.fixture(params=["folder", "zip"])
def make(request, tmp_path):
    """make({"cat/1.png": 7, "note.txt": b"..."}) -> path of a folder, or of a zip, with these files.

    Content is bytes, a picture, or the red of one in a single color.
    """

    def write(files):
        folder = tmp_path / "pictures"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                picture = Image.new("RGB", (SIZE, SIZE), (content, 0, 0)) if isinstance(content, int) else content
                picture.save(path)
        if request.param == "folder":
            return str(folder)
        with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
            for path in sorted(folder.rglob("*"), reverse=True):  # in no useful order
                archive.write(path, path.relative_to(folder))
        return str(tmp_path / "pictures.zip")

    return write
