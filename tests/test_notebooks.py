"""The notebooks of the documentation run from top to bottom and show the pictures that are stored in them."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def pictures(notebook: nbformat.NotebookNode) -> list[int]:
    """The number of pictures that each cell of code shows."""
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return [sum("image/png" in output.get("data", {}) for output in cell) for cell in outputs]


MNIST_IS_THERE = Path(os.environ.get("GENBENCH_DATA", "data"), "MNIST").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_its_pictures(path, tmp_path, monkeypatch):
    if "MNIST()" in path.read_text() and not MNIST_IS_THERE:
        pytest.skip("GENBENCH_DATA names no folder with MNIST")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    stored, notebook = nbformat.read(path, 4), nbformat.read(path, 4)
    NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
    assert "error:" not in printed  # a command that fails returns its status
    assert pictures(notebook) == pictures(stored) and sum(pictures(stored)) >= 5


def test_notebooks_are_small():
    assert len(NOTEBOOKS) == 3
    assert all(path.stat().st_size < 500_000 for path in NOTEBOOKS)
