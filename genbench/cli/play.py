"""play: a local page for one or several checkpoints."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from genbench.cli.flags import Arguments, add_model_arguments, import_modules
from genbench.core.errors import UserError

if TYPE_CHECKING:
    from genbench.evaluation.images import ImageSet


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench play",
        description="Open a page for one or several trained models, side by side: samples, latent sliders, "
        "interpolation, arithmetic, and results for an image that is uploaded or drawn. The page is served to this "
        "machine only and contacts no other machine.",
    )
    add_model_arguments(parser, several=True)
    parser.add_argument("--port", type=int, help="port of the page (default: a free one from 7860)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    return parser


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    arguments = _parser().parse_args(argv)
    if find_spec("gradio") is None:
        raise UserError('`play` needs Gradio, which is not installed: `pip install "genbench[play]"`.')
    if arguments.port is not None and not 1 <= arguments.port <= 65535:
        raise UserError(f"--port is {arguments.port}; expected a number from 1 to 65535.")

    from genbench.cli.inputs import model_of
    from genbench.play.actions import Loaded, title_of
    from genbench.play.server import free_port, serve

    if arguments.port is not None:
        free_port(arguments.port)  # before the models are loaded
    models: list[Loaded] = []
    for ckpt in arguments.ckpt:
        model, contents = model_of(argparse.Namespace(**vars(arguments) | {"ckpt": ckpt}))
        assert model.origin is not None, "it was loaded from a checkpoint"
        path, weights = model.origin
        title = title_of(path)
        if any(title == other.title for other in models):
            title = str(path)
        about = f"{type(model).__name__}, {model.images_seen:,} images seen"
        if arguments.raw or arguments.ema is not None:
            about += f", {weights} weights"
        models.append(Loaded(title, about, model, contents.get("data") or {}, _training_images(contents)))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that uploads are removed after SIGTERM, too
    serve(models, arguments.port, browser=not arguments.no_browser and _has_browser())
    return 0


def _training_images(contents: dict[str, Any]) -> Callable[[], ImageSet]:
    """A function that returns the training images of a checkpoint. It never downloads them."""

    def images() -> ImageSet:
        from genbench.cli.evaluate_data import prepared_data
        from genbench.evaluation.images import SplitImages

        trained_on = contents.get("data") or {}
        if not trained_on:
            raise UserError("the checkpoint does not say which data it was trained on.")
        local = ["--data.download=false"] if "download" in (trained_on.get("arguments") or {}) else []
        return SplitImages(prepared_data(contents, local), "train")

    return images


def _has_browser() -> bool:
    """Whether this is a terminal on a desktop. Without a desktop, `webbrowser` could start a text browser."""
    desktop = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stdout.isatty() and bool(desktop)
