"""check: run the contract tests on the model of a config. The model may be in your own repository."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from genbench.cli import configs
from genbench.cli.flags import Arguments, add_import_argument, import_modules
from genbench.cli.quiet import quiet
from genbench.testing import ContractViolation, contract_tests


def main(verb: str, argv: list[str]) -> int:
    parser = Arguments("python -m genbench check", description=__doc__)
    parser.add_argument("--config", required=True, help="name or file of a config")
    add_import_argument(parser)
    import_modules(argv)
    arguments = parser.parse_args(argv)
    path = configs.named(arguments.config)
    tests = contract_tests(path, arguments.modules)
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # the batches are too small to gain from more threads
    with tempfile.TemporaryDirectory() as folder:
        passed = [_passes(test, Path(folder) / test.__name__) for test in tests]
    print(f"\n{sum(passed)} of {len(tests)} contract tests passed by {path.stem}")
    return 0 if all(passed) else 1


def _passes(test: Callable[[Path], None], folder: Path) -> bool:
    start, fault = time.monotonic(), ""
    try:
        test(folder)
    except ContractViolation as error:
        fault = str(error)
    except Exception as error:  # a model that crashes fails the test
        fault = f"{type(error).__name__}: {error}"
    name, seconds = test.__name__.replace("_", " "), time.monotonic() - start
    print(f"{'failed' if fault else 'passed':<8}{name}  ({seconds:.1f} s)", flush=True)
    if fault:
        print(f"        {fault}")
    return not fault
