"""translate: apply a model to each image of a folder."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genbench.cli.flags import Arguments, add_model_arguments, import_modules, own_options
from genbench.cli.inputs import model_of
from genbench.cli.quiet import quiet
from genbench.core.errors import UserError, counted, refuse_below

if TYPE_CHECKING:
    from genbench.data.ranges import Range, Stored

NAMED = 3  # limit of the names of other files that are printed at the end
OF_ARRAYS = ("key", "layout", "severity")


class Input(NamedTuple):
    """An input image.

    name    of the image, in messages
    place   path of the result in the output folder
    load    returns the stored pixels
    """

    name: str
    place: str
    load: Callable[[], Stored]


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench translate",
        description="Apply a model to each image in a folder. Each result, a translation or a segmentation mask, has "
        "the size and the name of its image. For DICOM files, NIfTI volumes, arrays and multi-frame files the results "
        "are NAME.png, or NAME-0000.png and so on for several images.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--input", required=True, type=Path,
        help="folder (including its subfolders) or zip of images of any size; or one TIFF, DICOM, NIfTI, .npy or .npz "
        "file with several images; or a folder of arrays",
    )  # fmt: skip
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    black = parser.add_mutually_exclusive_group()
    black.add_argument(
        "--range",
        help="stored values that become black and white: `dtype` (the whole range of the stored type), `data` "
        "(minimum and maximum of the input) or LOW,HIGH. Default: the training range if it is LOW,HIGH; otherwise "
        "found as in training, from the type or from the values (a note is printed)",
    )
    black.add_argument("--window", metavar="CENTER,WIDTH", help="the range as center and width, common in radiology")
    parser.add_argument(
        "--frames", choices=("first", "each", "channels"),
        help="use of multi-frame files: the first frame, each frame as an image (default), or all as channels of one",
    )  # fmt: skip
    parser.add_argument("--key", help="name of the array of images in an .npz, or in a folder of .npy")
    parser.add_argument("--layout", choices=("NHW", "NHWC", "NCHW"), help="order of its axes (default: from its shape)")
    parser.add_argument("--severity", type=int, help="1 to 5: use this fifth of a CIFAR-10-C array")
    parser.add_argument(
        "--to",
        help="target domain, for models of two domains: A or B (default B), as named in training with "
        "`data.direction`. A model trained on pairs has only one direction",
    )
    parser.add_argument("--side-by-side", action="store_true", help="write the input to the left of the result")
    parser.add_argument(
        "--tile", type=int, default=1024,
        help="process larger images in tiles of this height and width; the result is close to the untiled one",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace images in the output folder")
    parser.epilog = "A model's own options are flags too, such as --seed of Pix2Pix; an unknown flag lists them."
    return parser


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    arguments, own = _parser().parse_known_args(argv)
    refuse_below(64, {"--tile": arguments.tile})
    given, out = arguments.input, arguments.output
    if not given.exists():
        raise UserError(f"--input {given} does not exist. Use a folder or file with images.")
    if out.exists() and not out.is_dir():
        raise UserError(f"--output {out} is a file; expected a folder.")
    if out.resolve() == given.resolve():
        raise UserError(f"--output {out} is the input folder, so its images would be lost. Use a different folder.")
    if given.resolve() in out.resolve().parents:
        raise UserError(
            f"--output {out} is inside the input folder, so it would be input next time. Use a different folder."
        )
    if out.resolve() in given.resolve().parents:
        raise UserError(f"--input {given} is inside the output folder and might be replaced. Use a different --output.")
    if not arguments.overwrite and out.is_dir() and any(out.iterdir()):
        raise UserError(f"--output {out} contains files already. Use a different folder, or add `--overwrite`.")
    with warnings.catch_warnings():
        quiet()
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("always", category=UserWarning, module="genbench")  # notes on ranges and frames
        return _translate(arguments, own)


def _translate(arguments: argparse.Namespace, own: list[str]) -> int:
    import torch
    from PIL import Image
    from rich.progress import Progress

    from genbench.core.capabilities import Segments, Translates
    from genbench.core.files import no_room
    from genbench.data import ranges
    from genbench.evaluation.images import flags_called

    out = arguments.output
    model, contents = model_of(arguments)
    kind = type(model).__name__
    masks = isinstance(model, Segments) and not isinstance(model, Translates)
    if masks:
        if arguments.to is not None:
            raise UserError(f"{kind} predicts masks and has no domains. Remove `--to {arguments.to}`.")
        options, channels = own_options(model, own, "segment", flags=_parser().flags()), model.spec.channels
    elif isinstance(model, Translates):
        to = arguments.to or "B"
        if to not in model.domains:
            ways = "translates only one way. Remove `--to`" if len(model.domains) == 1 else "translates only to A or B"
            raise UserError(f"--to {to}: this {kind} {ways}.")
        options = own_options(model, own, "translate", flags=_parser().flags()) | {"to": to}
        channels = model.spec.source[0] if to == "B" else model.spec.channels
    else:
        raise UserError(f"{kind} cannot translate: it has no `translate` or `segment` method.")
    method = model.segment if masks else model.translate
    Image.MAX_IMAGE_PIXELS = 2**30  # allows whole-slide scans: the files are the user's own
    trained = None
    with flags_called(""):
        if arguments.window is not None:
            range_ = ranges.windowed(arguments.window)
        elif arguments.range is not None:
            range_ = ranges.stated(arguments.range)
        else:
            trained_on = (contents.get("data") or {}).get("arguments", {})
            swapped = trained_on.get("direction") == "BtoA"  # domain B of the files is domain A of the model
            domain = "B" if (options.get("to") == "A") != swapped else "A"
            range_ = trained = ranges.of_domain(trained_on.get("range"), domain)
        inputs, black_and_white, unreadable, others = _inputs(arguments, range_, masks)
    _refuse_same_places(inputs, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {out} cannot be created ({error.strerror}). Use a different folder.") from error
    skipped, done = list(unreadable.values()), 0
    inputs = [each for each in inputs if each.name not in unreadable]
    with torch.no_grad(), Progress(transient=True) as bar:
        for each in bar.track(inputs, description="Translating"):
            try:
                with flags_called(""):
                    stored = each.load()
                    if trained is not None:
                        ranges.refuse_unlike(stored, trained, each.name)
                    picture = black_and_white.apply(stored, each.name)
            except UserError as error:
                skipped.append(str(error))
                continue
            picture = picture.convert("L" if channels == 1 else "RGB")
            image = _result(lambda x: method(x, **options), picture, model, masks, arguments)
            try:
                _write(image, out / each.place)
            except (OSError, ValueError) as error:  # the image may be too large for its file format
                if no_room(error):
                    raise UserError(
                        f"{error} {done:,} of {len(inputs):,} images were written. Free some space and add "
                        "`--overwrite`, or use a different `--output`."
                    ) from error
                skipped.append(f"{out / each.place} cannot be written ({error})")
            else:
                done += 1
    for reason in skipped:
        print(f"skipped: {reason}")
    left = ", ".join(others[:NAMED]) + (f" and {len(others) - NAMED} more" if len(others) > NAMED else "")
    count = f"{counted(done, 'image')} of {kind} at {model.images_seen:,} images seen -> {out}"
    print(count + (f"; {len(skipped)} skipped" if skipped else "") + (f"; not images: {left}" if others else ""))
    if masks and not arguments.side_by_side:
        classes = ", ".join(f"{k} {name}" for k, name in enumerate(model.spec.classes))
        print(f"in a mask, the value of a pixel is its class: {classes}")
    return 1 if skipped else 0


# ---- input ------------------------------------------------------------------------------------------------------


def _inputs(
    arguments: argparse.Namespace, given: Range | str | None, masks: bool
) -> tuple[list[Input], Range, dict[str, str], list[str]]:
    """Return the input images and their range, which is `given` or else found from all of them as in training.

    Also return the reason for each image that cannot be read, and the names of files that are not images.

    Raises:
        UserError: there are no images, or their range is not known.
    """
    from genbench.data.arrays import ArrayImages
    from genbench.evaluation.images import reader_of

    arrays = reader_of(arguments.input) is ArrayImages
    for name in ("frames",) if arrays else OF_ARRAYS:
        if getattr(arguments, name) is not None:
            what = "files with several frames" if arrays else "arrays, .npy or .npz"
            raise UserError(f"--{name} is for {what}. Remove --{name}, or use such an --input.")
    if arrays:
        return *_of_arrays(arguments, given), {}, []
    inputs, unreadable, others = _of_files(arguments.input, arguments.frames or "each", masks)
    return inputs, _range(inputs, given, str(arguments.input), unreadable), unreadable, others


def _of_arrays(arguments: argparse.Namespace, given: Range | str | None) -> tuple[list[Input], Range]:
    import numpy as np

    from genbench.evaluation.images import FileImages, open_images

    options = {name: value for name in OF_ARRAYS if (value := getattr(arguments, name)) is not None}
    images = open_images(arguments.input, "", range=None if given is None else str(given), **options)
    if not isinstance(images, FileImages):
        raise UserError(f"{arguments.input} contains points; expected images.")
    found: Any = images.split.pictures  # the images of one split, from one or more files
    places = [f"{member.path.stem}-{k:04d}.png" for member in found.members for k in range(member.shape[0])]
    return [
        Input(images.split.name(k), place, lambda k=k: found(np.array([k]))[0])
        for k, place in enumerate(places[found.first : found.first + found.count])
    ], images.range


def _of_files(path: Path, frames: Any, masks: bool) -> tuple[list[Input], dict[str, str], list[str]]:
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
    inputs = []
    for name, pictures in found.items():
        stem = name if name in reader.nameless else re.sub(r"(\.nii\.gz|\.[^./]+)$", "", name, flags=re.IGNORECASE)
        for picture in pictures:
            place = f"{stem}-{picture.numbers[0]:04d}.png" if len(pictures) > 1 else f"{stem}.png"
            if reader.kind(name) is None and len(pictures) == 1 and not masks:
                place = name  # an ordinary image: its result has the same format
            inputs.append(Input(reader.called(str(picture)), place, lambda picture=picture: reader.stored(picture)))
    return inputs, unreadable, sorted(set(files) - set(names))


def _range(inputs: Sequence[Input], given: Range | str | None, name: str, unreadable: dict[str, str]) -> Range:
    """Return the given range, or find it as in training. Images that cannot be read are added to `unreadable`."""
    from tqdm import tqdm

    from genbench.data.ranges import DTYPE, Range, Seen, find, look
    from genbench.evaluation.images import flags_called

    if isinstance(given, Range):
        return given

    def seen() -> Iterator[Seen]:
        for each in tqdm(inputs, "Looking for the range", delay=2, leave=False, disable=None):
            try:
                with flags_called(""):
                    (found,) = look([each.load()], lambda _, each=each: each.name)
            except UserError as error:
                unreadable[each.name] = str(error)
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


def _refuse_same_places(inputs: Sequence[Input], folder: Path) -> None:
    """Raise UserError if the results of two images would be the same file."""
    taken: dict[str, str] = {}
    for each in inputs:
        if each.place in taken:
            raise UserError(
                f"{taken[each.place]} and {each.name} would both be written to {folder / each.place}. Rename one of "
                "them."
            )
        taken[each.place] = each.name


# ---- output -----------------------------------------------------------------------------------------------------


def _result(apply: Any, picture: Any, model: Any, masks: bool, arguments: argparse.Namespace) -> Any:
    """Apply the model to one L or RGB image, and return the result as a PIL image."""
    import numpy as np
    import torch
    from PIL import Image

    from genbench.core.batch import from_uint8, to_uint8
    from genbench.core.image_grid import painted
    from genbench.core.tiles import in_tiles

    array = np.asarray(picture).copy()
    pixels = torch.from_numpy(array[None, None] if array.ndim == 2 else array.transpose(2, 0, 1)[None])
    x = from_uint8(pixels).to(model.device, model.dtype)
    found = in_tiles(apply, x, getattr(model, "stride", 1), arguments.tile)[0]
    if masks:
        made = Image.fromarray(found.argmax(0).to(torch.uint8).cpu().numpy(), "P")
        made.putpalette(painted(torch.arange(256)[None, None])[0, :, 0].T.flatten().tolist())
    else:
        level = to_uint8(found).cpu().numpy()
        made = Image.fromarray(level[0] if len(level) == 1 else level.transpose(1, 2, 0))
        profile = picture.info.get("icc_profile") or b""
        if made.mode == picture.mode == "RGB" and profile[16:20] == b"RGB ":  # the profile describes RGB colors
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
        # Pillow's defaults are lower: quality 75 (80 for WebP), and half the color resolution for JPEG
        options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}}.get(kind, {})
        image.save(file, kind, icc_profile=image.info.get("icc_profile"), **options)
