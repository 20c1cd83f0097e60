"""check: run the contract tests of a config's model, one of your own repository included."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from genbench.cli import configs
from genbench.cli.flags import Arguments, import_modules
from genbench.cli.quiet import quiet
from genbench.testing import ContractViolation, contract_tests


def main(verb: str, argv: list[str]) -> int:
    parser = Arguments("python -m genbench check", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", required=True, help="name or file of a config")
    parser.add_argument("--import", metavar="MODULE", help="import a module with your own model first")
    modules = [argv[k + 1] for k, a in enumerate(argv[:-1]) if a == "--import"]
    modules += [a.partition("=")[2] for a in argv if a.startswith("--import=")]
    arguments = parser.parse_args(import_modules(argv))
    path = configs.named(arguments.config)
    tests = contract_tests(path, modules)
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a few small images: more threads would wait for one another
    with tempfile.TemporaryDirectory() as folder:
        passed = [_passes(test, Path(folder) / test.__name__) for test in tests]
    print(f"\n{sum(passed)} of {len(tests)} contract tests passed by {path.stem}")
    return 0 if all(passed) else 1


def _passes(test: Callable[[Path], None], folder: Path) -> bool:
    start = time.monotonic()
    try:
        test(folder)
        wrong = ""
    except ContractViolation as error:
        wrong = str(error)
    except Exception as error:  # a model that crashes has failed, too
        wrong = f"{type(error).__name__}: {error}"
    name, seconds = test.__name__.replace("_", " "), time.monotonic() - start
    print(f"{'failed' if wrong else 'passed':<8}{name}  ({seconds:.1f} s)", flush=True)
    if wrong:
        print(f"        {wrong}")
    return not wrong
