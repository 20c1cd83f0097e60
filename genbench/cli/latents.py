"""latents: explore the latent space of a model. Each action is in its own file."""

from __future__ import annotations

import importlib
from types import ModuleType

from genbench.cli.flags import Arguments, import_modules
from genbench.cli.quiet import quiet
from genbench.core.files import removed_on_failure

ACTIONS = {
    "interpolate": "paths between seeds or images, as a grid and an animation",
    "arithmetic": "a - b + c, of seeds, images or mean codes of classes",
    "traverse": "one dimension or principal direction after another, as a grid",
    "manifold": "a two-dimensional latent space, decoded at Gaussian quantiles",
    "map": "codes of images in two dimensions, colored by label",
    "cluster": "clusters of the codes of images, and how well they agree with the labels",
    "project": "the codes of given images in a GAN, by optimization",
}


def parser_of(action: str | None = None) -> Arguments:
    """The parser, with the flags of one action only, since adding flags imports the file of the action."""
    parser = Arguments("python -m genbench latents", description="Use the latent space of a trained model.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, about in ACTIONS.items():
        sub = actions.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        if name == action:
            _file_of(name).add_arguments(sub)
    return parser


def _file_of(action: str) -> ModuleType:
    return importlib.import_module(f"genbench.cli.latents_{action}")


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    action = argv[0] if argv and argv[0] in ACTIONS else None
    arguments, more = parser_of(action).parse_known_args(argv)
    quiet()
    with removed_on_failure(arguments.out):
        return int(_file_of(arguments.action).run(arguments, more))
