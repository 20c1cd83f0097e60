"""translate: a folder of images in, a folder of images out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from genbench.cli.arguments import Arguments
from genbench.cli.runs import add_model_arguments, find_checkpoint, import_modules, usable_device
from genbench.core.errors import UserError, refuse_below

NAMED = 3  # files without an image that the end names


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench translate",
        description="Make an image of each image in a folder, under the same name and of the same size: a translation, "
        "or a mask of a model that segments. Of an animated picture the first frame is taken.",
    )
    add_model_arguments(parser)
    parser.add_argument("--input", required=True, type=Path, help="folder of images of any size, searched to any depth")
    parser.add_argument("--output", required=True, type=Path, help="folder that is written")
    parser.add_argument(
        "--to",
        help="domain that is wanted, for models that know two: A or B (default B), after `data.direction` of the "
        "training; a model of pairs makes what it was taught to",
    )
    parser.add_argument("--side-by-side", action="store_true", help="what was shown on the left, what was made right")
    parser.add_argument(
        "--tile",
        type=int,
        default=1024,
        help="larger images go in tiles of so many pixels a side, which are nearly, not quite, what the whole would be",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace images that the output folder holds")
    parser.epilog = "A model's own options are flags too, as --seed of Pix2Pix: a wrong one lists those that it has."
    return parser


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    arguments, own = _parser().parse_known_args(argv)
    refuse_below(64, {"--tile": arguments.tile})
    shown, made = arguments.input, arguments.output
    if not shown.is_dir():
        raise UserError(f"--input {shown} is no folder. Give one that holds images.")
    if made.exists() and not made.is_dir():
        raise UserError(f"--output {made} is a file. Give a folder.")
    if made.resolve() == shown.resolve():
        raise UserError(f"--output {made} is the input folder, whose images would be lost. Give another.")
    if shown.resolve() in made.resolve().parents:
        raise UserError(f"--output {made} lies in the input folder, and would be its input next time. Give another.")
    if made.resolve() in shown.resolve().parents:
        raise UserError(f"--input {shown} lies in the output folder, and could be written over. Give another --output.")
    if not arguments.overwrite and made.is_dir() and any(made.iterdir()):
        raise UserError(f"--output {made} holds files already, which are kept. Give another folder, or `--overwrite`.")

    import torch
    from PIL import Image
    from rich.progress import Progress

    import genbench
    from genbench.cli.sample import own_options
    from genbench.core import checkpoint
    from genbench.core.capabilities import Segments, Translates
    from genbench.core.files import kind_of, no_room
    from genbench.data.folder import Files, images_among
    from genbench.data.layouts import listed
    from genbench.data.pictures import SEVERAL
    from genbench.data.ranges import of_domain

    reader = Files(shown)
    files = reader.names()
    names = images_among(files, shown)
    ckpt = find_checkpoint(arguments.ckpt, arguments.runs, arguments.name)
    device = usable_device(arguments.device)
    model = genbench.load(ckpt, raw=arguments.raw, device=device)
    kind = type(model).__name__
    masks = isinstance(model, Segments) and not isinstance(model, Translates)
    if masks:
        if arguments.to is not None:
            raise UserError(f"{kind} makes masks and knows no domains. Leave `--to {arguments.to}` out.")
        options, channels = own_options(model, own, "segment", flags=_parser().flags()), model.spec.channels
    elif isinstance(model, Translates):
        to = arguments.to or "B"
        if to not in model.domains:
            ways = "translates one way. Leave `--to` out" if len(model.domains) == 1 else "translates to A or to B"
            raise UserError(f"--to {to}: this {kind} {ways}.")
        options = own_options(model, own, "translate", flags=_parser().flags()) | {"to": to}
        channels = model.spec.source[0] if to == "B" else model.spec.channels
    else:
        raise UserError(f"{kind} cannot translate: it has no `translate` or `segment` method.")
    method = model.segment if masks else model.translate
    trained_on = checkpoint.read(ckpt).get("data") or {}
    domain = "B" if options.get("to") == "A" else "A"
    black_and_white = of_domain(trained_on.get("arguments", {}).get("range"), domain)  # as in training
    places = _places(names, made, masks)
    try:
        made.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {made} cannot be made ({error.strerror}). Give another.") from error
    Image.MAX_IMAGE_PIXELS = 2**30  # these are the user's own: a whole-slide scan is no attack
    skipped, several, done = [f"{reader.called(name)} is {kind_of(shown / name)}" for name in reader.odd], [], 0
    with torch.no_grad(), Progress(transient=True) as bar:
        for name in bar.track(names, description="Translating"):
            try:
                picture = reader.picture(name, black_and_white)
                if name.lower().endswith((".png", *SEVERAL)) and len(reader.frames(name)) > 1:
                    several.append(name)
            except UserError as error:
                skipped.append(str(error))
                continue
            picture = picture.convert("L" if channels == 1 else "RGB")
            image = _made(lambda x: method(x, **options), picture, model, masks, arguments)
            try:
                _write(image, places[name])
            except (OSError, ValueError) as error:  # a format has its bounds
                if no_room(error):
                    raise UserError(
                        f"{error} {done:,} of {len(names):,} images were made. Make room and give `--overwrite`, or "
                        "another `--output`."
                    ) from error
                skipped.append(f"{places[name]} cannot be written ({error})")
            else:
                done += 1
    for reason in skipped:
        print(f"skipped: {reason}")
    if several:
        print(f"note: of {len(several)} files with several frames the first alone was taken: {listed(several, NAMED)}.")
    others = sorted(set(files) - set(names))
    left = ", ".join(others[:NAMED]) + (f" and {len(others) - NAMED} more" if len(others) > NAMED else "")
    count = f"{done} images of {kind} at {model.images_seen:,} images seen -> {made}"
    print(count + (f"; {len(skipped)} skipped" if skipped else "") + (f"; no images: {left}" if others else ""))
    if masks and not arguments.side_by_side:
        classes = ", ".join(f"{k} {name}" for k, name in enumerate(model.spec.classes))
        print(f"in a mask a pixel's number is its class: {classes}")
    return 1 if skipped else 0


def _places(names: list[str], folder: Path, masks: bool) -> dict[str, Path]:
    """Where each is written: under its own name, masks as .png.

    Raises:
        UserError: two have one place.
    """
    places = {name: (folder / name).with_suffix(".png") if masks else folder / name for name in names}
    taken: dict[Path, str] = {}
    for name, place in places.items():
        if place in taken:
            raise UserError(f"{taken[place]} and {name} would both be written to {place}. Rename one of them.")
        taken[place] = name
    return places


def _made(make: Any, picture: Any, model: Any, masks: bool, arguments: argparse.Namespace) -> Any:
    """What is made of one picture, L or RGB, as a PIL image."""
    import numpy as np
    import torch
    from PIL import Image

    from genbench.core.batch import from_uint8, to_uint8
    from genbench.core.tiles import in_tiles
    from genbench.evaluation.pictures import painted

    array = np.asarray(picture).copy()
    pixels = torch.from_numpy(array[None, None] if array.ndim == 2 else array.transpose(2, 0, 1)[None])
    x = from_uint8(pixels).to(model.device, model.dtype)
    found = in_tiles(make, x, getattr(model, "stride", 1), arguments.tile)[0]
    if masks:
        made = Image.fromarray(found.argmax(0).to(torch.uint8).cpu().numpy(), "P")
        made.putpalette(painted(torch.arange(256)[None, None])[0, :, 0].T.flatten().tolist())
    else:
        level = to_uint8(found).cpu().numpy()
        made = Image.fromarray(level[0] if len(level) == 1 else level.transpose(1, 2, 0))
        profile = picture.info.get("icc_profile") or b""
        if made.mode == picture.mode == "RGB" and profile[16:20] == b"RGB ":  # what its numbers mean on a screen
            made.info["icc_profile"] = profile
    if not arguments.side_by_side:
        return made
    both = Image.new("L" if made.mode == picture.mode == "L" else "RGB", (2 * picture.width, picture.height))
    both.info.update(made.info)
    both.paste(picture, (0, 0))
    both.paste(made if made.mode in ("L", "RGB") else made.convert("RGB"), (picture.width, 0))
    return both


def _write(image: Any, path: Path) -> None:
    from PIL import Image

    from genbench.core.files import replacing

    kind = Image.registered_extensions().get(path.suffix.lower(), "PNG")
    with replacing(path) as file:
        # by itself a JPEG would keep colours at half of the size
        options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}}.get(kind, {})
        image.save(file, kind, icc_profile=image.info.get("icc_profile"), **options)
