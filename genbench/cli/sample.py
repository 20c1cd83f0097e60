"""sample: draw images from a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from genbench.cli.flags import Arguments, add_model_arguments, import_modules, own_options
from genbench.cli.inputs import add_out_arguments, condition_of, model_of, refuse_existing, refuse_used
from genbench.core.errors import UserError, counted, refuse_below

SOFTWARE = "genbench sample"  # written into the PNGs of a folder
FORMATS = ".png (a grid), .npy or .npz (uint8 [n, H, W, C]), or a folder (one PNG each)"
# for points: .png is a plot, .npy and .npz contain float32 [n, D]


def _parser() -> Arguments:
    parser = Arguments("python -m genbench sample", description="Draw images from a trained model.")
    add_model_arguments(parser)
    parser.add_argument("--n", type=int, default=64, help="number of images (default 64)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first image; image i is drawn from seed + i (default 0)"
    )
    add_out_arguments(parser, "samples.png", FORMATS)
    parser.add_argument("--label", help="class to draw, by name or number, for models trained on labels (default: all)")
    parser.add_argument("--prompt", help="caption of the images, for models trained on captions")
    parser.add_argument("--batch-size", type=int, default=64, help="images drawn at once; changes only the speed")
    parser.epilog = "A model's own sampling options are flags too; an unknown flag lists them."
    return parser


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    arguments, own = _parser().parse_known_args(argv)
    refuse_below(1, {"--n": arguments.n, "--batch-size": arguments.batch_size})
    out = arguments.out
    if out.suffix not in ("", ".png", ".npy", ".npz"):
        raise UserError(f"--out {out}: '{out.suffix}' is not one of the formats: {FORMATS}.")
    if out.suffix == "":
        refuse_used(out, arguments.overwrite, "The images")
        drawn_before(out)
    else:
        refuse_existing(out, arguments.overwrite, "The images")

    import torch
    from rich.progress import Progress

    from genbench.core.batch import to_stored
    from genbench.core.capabilities import Decodes, Samples
    from genbench.core.conditions import columns
    from genbench.core.progress import watched
    from genbench.evaluation.comparison import refuse_nan

    model, _ = model_of(arguments)
    device = model.device
    if not isinstance(model, Samples):
        instead = ""
        if isinstance(model, Decodes):
            density = "vq_prior" if model.latent_dtype == "int64" else "latent_mixture"
            instead = f" Train a prior on its latents, which can sample: `fit --config {density}`."
        raise UserError(f"{type(model).__name__} cannot sample: it has no `sample` method.{instead}")
    if len(model.spec.shape) == 1 and out.suffix == "":
        raise UserError(f"--out {out}: points cannot be written as a folder. Use a .png (a plot), .npy or .npz file.")
    options = own_options(model, own, "sample", flags=_parser().flags())
    condition = condition_of(model, arguments.n, arguments.label, arguments.prompt)
    seeds = torch.arange(arguments.seed, arguments.seed + arguments.n)
    images = []
    with torch.no_grad(), Progress(transient=True) as bar:
        task = bar.add_task("Sampling", total=arguments.n)
        for part in torch.arange(arguments.n).split(arguments.batch_size):
            batch = None if condition is None else condition[part.to(device)]
            with watched(lambda items, size=len(part): _advancing(bar, task, list(items), size)):
                drawn = model.sample(seeds[part].to(device), condition=batch, **options)
            refuse_nan(drawn, "sample", model)
            images.append(to_stored(drawn).cpu())
            bar.update(task, completed=int(part[-1]) + 1)
    write(torch.cat(images), out, columns(model) if arguments.label is None else None)
    what = "image" if len(model.spec.shape) == 3 else "point"
    print(f"{counted(arguments.n, what)} of {type(model).__name__} at {model.images_seen:,} images seen -> {out}")
    return 0


def _advancing(bar: Any, task: Any, items: list[Any], images: int) -> Iterator[Any]:
    """Yield the steps of a batch of images; each advances the progress bar."""
    for item in items:
        yield item
        bar.advance(task, images / len(items))


def drawn_before(folder: Path) -> list[Path]:
    """Return the images that an earlier `sample` wrote to a folder, if it exists.

    Raises:
        UserError: the folder contains other images, or folders, which may contain images.
    """
    from PIL import Image

    from genbench.data.readers import EXTENSIONS

    found = []
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if path.suffix.lower() not in EXTENSIONS and not path.is_dir():
            continue
        ours = False
        if re.fullmatch(r"\d{6,}\.png", path.name) and path.is_file():
            with suppress(OSError, SyntaxError, ValueError), Image.open(path, formats=["PNG"]) as image:
                ours = image.info.get("Software") == SOFTWARE
        if not ours:
            raise UserError(
                f"--out {folder} contains {path.name}, which `sample` did not write and does not remove. Use a "
                f"different folder, or move {path.name} out of it."
            )
        found.append(path)
    return found


def write(images: Any, out: Path, columns: int | None = None) -> None:
    """Write uint8 [n, C, H, W], or points [n, D], in the format of the path's suffix. If `out` is a folder, images from
    an earlier `sample` are deleted.

    Raises:
        NotWritten: the images could not be written to `out`. The message says where they were written instead.
    """
    import numpy as np

    from genbench.core import files
    from genbench.core.batch import from_stored
    from genbench.core.image_grid import enlarged, picture

    array = images.numpy() if images.ndim == 2 else images.permute(0, 2, 3, 1).numpy()
    if out.suffix == "":
        _write_folder(array, out)
    elif out.suffix == ".png":
        sheet = enlarged(picture(from_stored(images), columns=columns))
        files.write_png(out, sheet)
    elif out.suffix == ".npy":
        files.write(out, lambda file: np.save(file, array))
    else:
        files.write(out, lambda file: np.savez_compressed(file, images=array))


def _write_folder(array: Any, out: Path) -> None:
    """Write each image of [n, H, W, C] as a PNG."""
    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from genbench.core import files

    about, k = PngInfo(), 0
    about.add_text("Software", SOFTWARE)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in drawn_before(out):
            path.unlink()
        for k, image in enumerate(array):
            files.created(out / f"{k:06d}.png")
            Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(out / f"{k:06d}.png", pnginfo=about)
    except OSError as error:
        (out / f"{k:06d}.png").unlink(missing_ok=True)  # the last file is incomplete
        _, where = files.elsewhere(f"{out.name}.npz", lambda file: np.savez_compressed(file, images=array))
        raise files.NotWritten(
            f"{k:,} of {len(array):,} images were written to {out}: {error.strerror or error}. {where}"
        ) from error
