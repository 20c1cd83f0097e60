"""fetch: data sets and extractor weights brought to the data root ahead of time, for machines without a network."""

from __future__ import annotations

import sys
from pathlib import Path

from genbench.cli.flags import Arguments
from genbench.core.errors import UserError, did_you_mean


def main(verb: str, argv: list[str]) -> int:
    parser = Arguments(
        "python -m genbench fetch",
        description="Bring data sets and extractor weights to the data root. Without names: say what is there.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets and extractors")
    parser.add_argument("--root", help="data root (default: $GENBENCH_DATA, else ./data)")
    arguments = parser.parse_args(argv)

    import genbench.data
    from genbench.data.module import data_root
    from genbench.data.vision import TorchvisionData
    from genbench.evaluation import extractor_weights

    root = data_root(arguments.root)
    classes = {
        name: cls for name in genbench.data.__all__
        if issubclass(cls := getattr(genbench.data, name), TorchvisionData)
    }  # fmt: skip
    known = [*classes, *extractor_weights.PUBLISHED]
    for name in arguments.names:
        if name not in known:
            near = did_you_mean(name, known)
            raise UserError(f"There is nothing to fetch called '{name}'; there are {', '.join(known)}.{near}")
    failed = 0
    for name in arguments.names:
        try:
            if name in classes:
                classes[name](root=str(root)).prepare_data()
            elif extractor_weights.find_weights(name, root) is None:
                extractor_weights.fetch_weights(name, root)
        except UserError as error:  # the others may still be had
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    _show(arguments.names or known, {name: cls(root=str(root)) for name, cls in classes.items()}, root)
    return 2 if failed else 0


def _show(names: list[str], sets: dict, root: Path) -> None:
    from genbench.evaluation import extractor_weights

    print(f"Data root {root.absolute()}")
    for name in names:
        if name in sets:
            missing = sets[name].missing()
            state = "there" if not missing else f"not there ({missing[0]}{' and others' if missing[1:] else ''})"
            kind = "data set"
        else:
            found = extractor_weights.find_weights(name, root)
            file, source, _ = extractor_weights.PUBLISHED[name]
            state = f"there: {found}" if found else f"not there ({source}{file})"
            kind = "extractor"
        print(f"  {name:<14}{kind:<11}{state}")
