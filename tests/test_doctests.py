"""The examples in docstrings give what they show."""

import doctest
import importlib
from pathlib import Path

import pytest

import genbench

ROOT = Path(genbench.__file__).parent
WITH_EXAMPLES = [path for path in sorted(ROOT.rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_in_docstrings(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
    failed, tried = doctest.testmod(module, optionflags=doctest.FAIL_FAST)
    assert tried and not failed


def test_every_module_of_metrics_with_public_functions_has_an_example():
    without = {path.name for path in (ROOT / "metrics").glob("*.py")} - {path.name for path in WITH_EXAMPLES}
    assert without == {"score.py", "registry.py", "__init__.py"}  # without functions of tensors
