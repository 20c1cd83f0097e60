"""Contract tests: requirements on every model, for use with pytest and `python -m genbench check`.

    # test_my_model.py, next to my_model.py and my_model.yaml
    import pytest

    from genbench.testing import contract_tests


    @pytest.mark.parametrize("contract_test", contract_tests("my_model.yaml"))
    def test_my_model(contract_test, tmp_path):
        contract_test(tmp_path)

The tests train the model of the config on a few synthetic images with the same shape as its data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from pathlib import Path

from genbench.cli import configs
from genbench.testing.contracts import CONTRACT_TESTS, ContractViolation
from genbench.testing.processes import two_processes_agree
from genbench.testing.recipe import Recipe

__all__ = ["ContractViolation", "contract_tests"]


def contract_tests(config: str | Path, modules: Sequence[str] = ()) -> list[Callable[[Path], None]]:
    """The contract tests of a model. Each test is a named function of an empty folder, to which it writes.

    A test raises ContractViolation if the model violates it. Exceptions of the model are not caught.

    Args:
        config: File or name of a config with `model` and `data`
        modules: Modules to import, for classes that the config names without a module

    Raises:
        UserError: the config does not exist, has no `model` or no `data`, or contains invalid settings.
    """
    recipe = Recipe(configs.named(str(config)), modules)
    return [update_wrapper(partial(test, recipe), test) for test in (*CONTRACT_TESTS, two_processes_agree)]
