"""sample: draw images from a checkpoint."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from genbench.cli.flags import Arguments, add_model_arguments, find_checkpoint, import_modules, usable_device
from genbench.core.errors import UserError, did_you_mean, refuse_below

SOFTWARE = "genbench sample"  # written into the PNGs of a folder
FORMATS = ".png (a grid), .npy or .npz (uint8 [n, H, W, C]), or a folder (one PNG each)"
# for points: .png is a plot, .npy and .npz contain float32 [n, D]


def _parser() -> Arguments:
    parser = Arguments("python -m genbench sample", description="Draw images from a trained model.")
    add_model_arguments(parser)
    parser.add_argument("--n", type=int, default=64, help="number of images (default 64)")
    parser.add_argument("--seed", type=int, default=0, help="image i is drawn from seed + i (default 0)")
    parser.add_argument("--out", type=Path, default=Path("samples.png"), help=f"output: {FORMATS}")
    parser.add_argument("--label", help="class to draw, by name or number, for models trained on labels (default: all)")
    parser.add_argument("--prompt", help="caption of the images, for models trained on captions")
    parser.add_argument("--batch-size", type=int, default=64, help="images drawn at once; changes only the speed")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --out")
    parser.epilog = "A model's own sampling options are flags too; an unknown flag lists them."
    return parser


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    arguments, own = _parser().parse_known_args(argv)
    refuse_below(1, {"--n": arguments.n, "--batch-size": arguments.batch_size})
    out = arguments.out
    if out.suffix not in ("", ".png", ".npy", ".npz"):
        raise UserError(f"--out {out}: '{out.suffix}' is not one of the formats: {FORMATS}.")
    _refuse_existing(out, arguments.overwrite)

    import torch
    from rich.progress import Progress

    import genbench
    from genbench.callbacks.conditions import columns
    from genbench.core.batch import to_stored
    from genbench.core.capabilities import Decodes, Samples
    from genbench.core.progress import watched

    ckpt = find_checkpoint(arguments.ckpt, arguments.runs, arguments.name)
    device = usable_device(arguments.device)
    model = genbench.load(ckpt, raw=arguments.raw, device=device)
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
            batch = None if condition is None else condition[part].to(device)
            with watched(lambda items, size=len(part): _advancing(bar, task, list(items), size)):
                images.append(to_stored(model.sample(seeds[part].to(device), condition=batch, **options)).cpu())
            bar.update(task, completed=int(part[-1]) + 1)
    write(torch.cat(images), out, columns(model) if arguments.label is None else None)
    print(f"{arguments.n} images of {type(model).__name__} at {model.images_seen:,} images seen -> {out}")
    return 0


def _advancing(bar: Any, task: Any, items: list[Any], images: int) -> Iterator[Any]:
    """Yield the steps of a batch of images; each advances the progress bar."""
    for item in items:
        yield item
        bar.advance(task, images / len(items))


def _refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise UserError, before anything is drawn, for an `--out` that exists or cannot be written."""
    from genbench.core.files import kind_of, refuse_unwritable

    refuse_unwritable(out if out.suffix == "" and not out.is_file() else out.parent, "The images")
    usable = out.is_dir() if out.suffix == "" else out.is_file()
    if out.exists() and not usable:
        raise UserError(f"--out {out} is {kind_of(out)} already. Use a different path.")
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise UserError(f"--out {out} exists already. Use a different path, or add `--overwrite`.")
    if out.is_dir():
        _drawn_before(out)


def _drawn_before(folder: Path) -> list[Path]:
    """Return the images that an earlier `sample` wrote to a folder.

    Raises:
        UserError: the folder contains other images, or folders, which may contain images.
    """
    from PIL import Image

    from genbench.data.readers import EXTENSIONS

    found = []
    for path in sorted(folder.iterdir()):
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
        files.write(out, lambda file: sheet.save(file, "PNG"))
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
        for path in _drawn_before(out):
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


def own_options(model: Any, given: list[str], *methods: str, flags: Iterable[str] = ()) -> dict[str, Any]:
    """Parse `given` into the model's own options of the methods, such as `sample`.

    `flags` are the flags of the command, which an error may suggest.
    """
    from genbench.core.capabilities import options as options_of

    known: dict[str, Any] = {}
    for method in methods:
        known |= options_of(getattr(model, method)) if hasattr(model, method) else {}
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for name, default in known.items():
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        parser.add_argument(*spellings, type=_boolean if isinstance(default, bool) else type(default), default=default)
    try:
        options, unknown = parser.parse_known_args(given)
    except argparse.ArgumentError as error:
        raise UserError(f"{error}.") from error
    if unknown:
        listed = ", ".join(f"--{name} (default {default})" for name, default in known.items()) or "none"
        near = did_you_mean(unknown[0].partition("=")[0], [*(f"--{name}" for name in known), *flags])
        raise UserError(f"{type(model).__name__} has no option {unknown[0]}; its own options: {listed}.{near}")
    return vars(options)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


def condition_of(model: Any, n: int, label: str | None = None, prompt: str | None = None) -> Any:
    """Return the condition of n samples, int64 [n] or [n, L]: the class or the prompt, by default every class in turn.
    None for an unconditional model."""
    import torch

    from genbench.callbacks.conditions import in_turn
    from genbench.core.batch import to_tokens

    name, spec = type(model).__name__, model.spec
    if label is not None and prompt is not None:
        raise UserError("--label and --prompt cannot be combined: a model has labels or captions. Remove one of them.")
    if not model.conditional:
        if label is None and prompt is None:
            return None
        target, flag = ("labels", f"--label {label}") if prompt is None else ("captions", f"--prompt '{prompt}'")
        raise UserError(
            f"{name} was trained without {target}, so it cannot use `{flag}`. Remove the flag, or train a "
            "conditional model."
        )
    if spec.target == "caption":
        if label is not None or not (prompt or "").split():
            words = ", ".join(spec.vocabulary[1:])
            raise UserError(f"{name} was trained on captions. Use `--prompt '...'` with words from: {words}.")
        return torch.tensor(to_tokens(prompt or "", spec.vocabulary, spec.caption_length)).expand(n, -1)
    known = ", ".join(spec.classes)
    if prompt is not None:
        raise UserError(f"{name} was trained on labels and takes no --prompt. Use `--label` with one of: {known}.")
    if label is None:
        labels = in_turn(model, n)
        assert labels is not None, "the model takes labels"
        return labels.cpu()
    if label not in spec.classes and not (label.isdecimal() and len(label) < 10 and int(label) < len(spec.classes)):
        raise UserError(f"Unknown class '{label}'. Choose from: {known}.")
    return torch.full((n,), spec.classes.index(label) if label in spec.classes else int(label))
