"""translate: a folder of images in, a folder of images out."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genbench.cli.flags import Arguments, add_model_arguments, find_checkpoint, import_modules, usable_device
from genbench.cli.quiet import quiet
from genbench.core.errors import UserError, refuse_below

if TYPE_CHECKING:
    from genbench.data.ranges import Range, Stored
    from genbench.data.readers import Files, Picture, ZipFiles

NAMED = 3  # files without an image that the end names
OF_ARRAYS = ("key", "layout", "severity")


class Shown(NamedTuple):
    """A picture that a model is shown.

    name    in the input
    place   in the output
    called  in an error
    """

    name: str
    place: str
    called: str
    stored: Callable[[], Stored]


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench translate",
        description="Make an image of each image in a folder, of the same size: a translation, or a mask of a model "
        "that segments. It has the name of the image. Of DICOM files, NIfTI volumes, arrays and films PNGs are "
        "written: NAME.png, or of several NAME-0000.png and so on.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        help="folder or zip of images of any size, searched to any depth; or one file of several (TIFF, DICOM, NIfTI), "
        ".npy or .npz, or a folder of such arrays",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder that is written")
    black = parser.add_mutually_exclusive_group()
    black.add_argument(
        "--range",
        help="which of the stored values become black and white: `dtype` (the whole range of the stored type), `data` "
        "(minimum and maximum of the input) or LOW,HIGH. Default: the training's where it is LOW,HIGH; else, as in "
        "training, by the type or, which is said, by the values",
    )
    black.add_argument("--window", metavar="CENTER,WIDTH", help="the range, as radiologists state it")
    parser.add_argument(
        "--frames",
        choices=("first", "each", "channels"),
        help="what is taken of a file of several frames: the first, each as an image (default), or all as the channels "
        "of one",
    )
    parser.add_argument("--key", help="name of the array of images in an .npz, or in a folder of .npy")
    parser.add_argument("--layout", choices=("NHW", "NHWC", "NCHW"), help="order of its axes (default: by the shape)")
    parser.add_argument("--severity", type=int, help="1 to 5, which fifth of an array of CIFAR-10-C")
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
    if not shown.exists():
        raise UserError(f"--input {shown} is no folder or file. Give one that holds images.")
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
    with warnings.catch_warnings():
        quiet()
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("always", category=UserWarning, module="genbench")  # ranges that were found, ...
        return _translate(arguments, own)


def _translate(arguments: argparse.Namespace, own: list[str]) -> int:
    import torch
    from PIL import Image
    from rich.progress import Progress

    import genbench
    from genbench.cli.sample import own_options
    from genbench.core import checkpoint_io
    from genbench.core.capabilities import Segments, Translates
    from genbench.core.files import no_room
    from genbench.data import ranges
    from genbench.evaluation.images import flags_called

    made = arguments.output
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
    Image.MAX_IMAGE_PIXELS = 2**30  # these are the user's own: a whole-slide scan is no attack
    trained = None
    with flags_called(""):
        if arguments.window is not None:
            given = ranges.windowed(arguments.window)
        elif arguments.range is not None:
            given = ranges.stated(arguments.range)
        else:
            trained_on = (checkpoint_io.read(ckpt).get("data") or {}).get("arguments", {})
            turned = trained_on.get("direction") == "BtoA"  # what the files call B, the model calls A
            domain = "B" if (options.get("to") == "A") != turned else "A"
            given = trained = ranges.of_domain(trained_on.get("range"), domain)
        pictures, black_and_white, unreadable, others = _pictures(arguments, given, masks)
    places = _places(pictures, made)
    try:
        made.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {made} cannot be made ({error.strerror}). Give another.") from error
    skipped, done = list(unreadable.values()), 0
    pictures = [one for one in pictures if one.called not in unreadable]
    with torch.no_grad(), Progress(transient=True) as bar:
        for one in bar.track(pictures, description="Translating"):
            try:
                with flags_called(""):
                    stored = one.stored()
                    if trained is not None:
                        ranges.refuse_unlike(stored, trained, one.called)
                    picture = black_and_white.apply(stored, one.called)
            except UserError as error:
                skipped.append(str(error))
                continue
            picture = picture.convert("L" if channels == 1 else "RGB")
            image = _made(lambda x: method(x, **options), picture, model, masks, arguments)
            try:
                _write(image, places[one])
            except (OSError, ValueError) as error:  # a format has its bounds
                if no_room(error):
                    raise UserError(
                        f"{error} {done:,} of {len(pictures):,} images were made. Make room and give `--overwrite`, or "
                        "another `--output`."
                    ) from error
                skipped.append(f"{places[one]} cannot be written ({error})")
            else:
                done += 1
    for reason in skipped:
        print(f"skipped: {reason}")
    left = ", ".join(others[:NAMED]) + (f" and {len(others) - NAMED} more" if len(others) > NAMED else "")
    count = f"{done} images of {kind} at {model.images_seen:,} images seen -> {made}"
    print(count + (f"; {len(skipped)} skipped" if skipped else "") + (f"; no images: {left}" if others else ""))
    if masks and not arguments.side_by_side:
        classes = ", ".join(f"{k} {name}" for k, name in enumerate(model.spec.classes))
        print(f"in a mask a pixel's number is its class: {classes}")
    return 1 if skipped else 0


# ---- what is shown ----------------------------------------------------------------------------------------------


def _pictures(
    arguments: argparse.Namespace, given: Range | str | None, masks: bool
) -> tuple[list[Shown], Range, dict[str, str], list[str]]:
    """The pictures of the input, and their range: `given`, else found from all of them, as training does.

    Then what could not be read, with the reason, and the names of files that are no images.

    Raises:
        UserError: there are none, or their range is not known.
    """
    from genbench.data.arrays import ArrayImages
    from genbench.evaluation.images import reader_of

    path = arguments.input
    arrays = reader_of(path) is ArrayImages
    for name in ("frames",) if arrays else OF_ARRAYS:
        if getattr(arguments, name) is not None:
            of = "files that hold films or volumes" if arrays else "arrays, .npy or .npz"
            raise UserError(f"--{name} is of {of}. Leave it out, or give such an --input.")
    if arrays:
        return *_of_arrays(arguments, given), {}, []
    pictures, unreadable, others = _of_files(path, arguments.frames or "each", masks)
    return pictures, _range(pictures, given, str(path), unreadable), unreadable, others


def _of_arrays(arguments: argparse.Namespace, given: Range | str | None) -> tuple[list[Shown], Range]:
    import numpy as np

    from genbench.evaluation.images import FileImages, open_images

    options = {name: value for name in OF_ARRAYS if (value := getattr(arguments, name)) is not None}
    images = open_images(arguments.input, "", range=None if given is None else str(given), **options)
    if not isinstance(images, FileImages):
        raise UserError(f"{arguments.input} holds points. Give images.")

    found: Any = images.split.pictures  # one split, of one or more files
    places = [f"{member.path.stem}-{k:04d}.png" for member in found.members for k in range(member.shape[0])]
    return [
        Shown(place, place, images.split.name(k), lambda k=k: found(np.array([k]))[0])
        for k, place in enumerate(places[found.first : found.first + found.count])
    ], images.range


def _of_files(path: Path, frames: Any, masks: bool) -> tuple[list[Shown], dict[str, str], list[str]]:
    from genbench.core.files import kind_of
    from genbench.data.folder import expanded, opened
    from genbench.data.image_files import SEVERAL
    from genbench.evaluation.images import flags_called, refuse_leading_out

    if path.is_file() and zipfile.is_zipfile(path):
        refuse_leading_out(path)
    reader, names, files = opened(path)
    unreadable = {name: f"{reader.called(name)} is {kind_of(path / name)}" for name in reader.odd}
    for name in names:
        if reader.kind(name) is not None or name.lower().endswith((".png", *SEVERAL)):
            try:
                with flags_called(""):
                    reader.frames(name)
            except UserError as error:
                unreadable[name] = str(error)
    found, notes = expanded(reader, [name for name in names if name not in unreadable], frames, path)
    for note in notes:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    pictures = [
        Shown(str(picture), _place(reader, name, picture, len(some), masks), reader.called(str(picture)),
              lambda picture=picture: reader.stored(picture))
        for name, some in found.items() for picture in some
    ]  # fmt: skip
    return pictures, unreadable, sorted(set(files) - set(names))


def _place(reader: Files | ZipFiles, name: str, picture: Picture, count: int, masks: bool) -> str:
    """Where the image of one of so many pictures of a file is written: as the file where it is an ordinary image."""
    if reader.kind(name) is None and count == 1 and not masks:
        return name
    stem = name if name in reader.nameless else re.sub(r"(\.nii\.gz|\.[^./]+)$", "", name, flags=re.IGNORECASE)
    return f"{stem}-{picture.numbers[0]:04d}.png" if count > 1 else f"{stem}.png"


def _range(pictures: Sequence[Shown], given: Range | str | None, name: str, unreadable: dict[str, str]) -> Range:
    """As it is given, else by the rule of training; pictures that cannot be read are added to `unreadable`."""
    from tqdm import tqdm

    from genbench.data.ranges import DTYPE, Range, Seen, find, look
    from genbench.evaluation.images import flags_called

    if isinstance(given, Range):
        return given

    def seen() -> Iterator[Seen]:
        for one in tqdm(pictures, "Looking for the range", delay=2, leave=False, disable=None):
            try:
                with flags_called(""):
                    (found,) = look([one.stored()], lambda _, one=one: one.called)
            except UserError as error:
                unreadable[one.called] = str(error)
            else:
                yield found

    every = seen()
    first = next(every, None)
    if first is None:
        return DTYPE
    found, note = find(chain([first], every), given, name)
    if note is not None:
        warnings.warn(note, stacklevel=2)
    return found


def _places(pictures: Sequence[Shown], folder: Path) -> dict[Shown, Path]:
    """Where each is written.

    Raises:
        UserError: two have one place.
    """
    taken: dict[str, Shown] = {}
    for one in pictures:
        if one.place in taken:
            raise UserError(
                f"{taken[one.place].name} and {one.name} would both be written to {folder / one.place}. Rename one of "
                "them."
            )
        taken[one.place] = one
    return {one: folder / one.place for one in pictures}


def _made(make: Any, picture: Any, model: Any, masks: bool, arguments: argparse.Namespace) -> Any:
    """What is made of one picture, L or RGB, as a PIL image."""
    import numpy as np
    import torch
    from PIL import Image

    from genbench.core.batch import from_uint8, to_uint8
    from genbench.core.image_grid import painted
    from genbench.core.tiles import in_tiles

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
        # by itself a JPEG would keep colors at half of the size
        options = {"JPEG": {"validation": 95, "subsampling": 0}, "WEBP": {"validation": 95}}.get(kind, {})
        image.save(file, kind, icc_profile=image.info.get("icc_profile"), **options)
