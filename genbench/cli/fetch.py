"""fetch: download data sets and extractor weights in advance, for machines without a network."""

from __future__ import annotations

import sys

from genbench.cli.flags import Arguments
from genbench.core.errors import UserError, did_you_mean


def main(verb: str, argv: list[str]) -> int:
    parser = Arguments(
        "python -m genbench fetch",
        description="Download data sets and extractor weights to the data root. Without names: list what is present.",
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
            raise UserError(f"Unknown name '{name}'. Choose from: {', '.join(known)}.{near}")
    failed = 0
    for name in arguments.names:
        try:
            if name in classes:
                classes[name](root=str(root)).prepare_data()
            elif extractor_weights.find_weights(name, root) is None:
                extractor_weights.fetch_weights(name, root)
        except UserError as error:  # continue with the other names
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    print(f"Data root {root.absolute()}")
    for name in arguments.names or known:
        if name in classes:
            missing = classes[name](root=str(root)).missing()
            state = f"missing ({missing[0]}{' and others' if missing[1:] else ''})" if missing else "there"
            print(f"  {name:<14}data set   {state}")
        else:
            file, source, _ = extractor_weights.PUBLISHED[name]
            found = extractor_weights.find_weights(name, root)
            print(f"  {name:<14}extractor  {f'there: {found}' if found else f'missing ({source}{file})'}")
    return 2 if failed else 0
