"""Contract tests: what every model must do, for pytest and for `python -m genbench check`.

    # test_my_model.py, beside my_model.py and my_model.yaml
    import pytest

    from genbench.testing import contract_tests


    @pytest.mark.parametrize("contract_test", contract_tests("my_model.yaml"))
    def test_my_model(contract_test, tmp_path):
        contract_test(tmp_path)

They train the model of the config on a few synthetic images in the shape of its data.
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
    """The contract tests of a model: named functions that take an empty folder to write to.

    A test raises ContractViolation if the model violates it. Errors of the model itself are passed on.

    Args:
        config: File or name of a config with `model` and `data`
        modules: Modules to import for classes that the config names without a module

    Raises:
        UserError: there is no such config, or it has no model or no data, or its settings do not fit them.
    """
    recipe = Recipe(configs.named(str(config)), modules)
    return [update_wrapper(partial(test, recipe), test) for test in (*CONTRACT_TESTS, two_processes_agree)]
