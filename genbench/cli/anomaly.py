"""anomaly: score images as normal or anomalous with a trained model."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from genbench.cli.flags import Arguments, add_model_arguments, import_modules, own_options
from genbench.cli.inputs import (
    Inputs,
    add_image_arguments,
    add_out_arguments,
    images_of,
    model_of,
    refuse_blocked,
    refuse_points,
    refuse_used,
    refuse_without,
)
from genbench.cli.quiet import quiet
from genbench.core.errors import UserError, counted, refuse_below, some
from genbench.core.files import removed_on_failure

if TYPE_CHECKING:
    from torch import Tensor

BY = ("reconstruction", "likelihood", "latent", "discriminator", "projection")
SCORES = {  # labels of the axis
    "reconstruction": "mean squared error of the reconstruction",
    "likelihood": "-log p(x) in nats",
    "latent": "Mahalanobis distance of the code",
    "discriminator": "negative logit of the discriminator",
    "projection": "mean squared error of the projection",
}
FILES = ("scores.csv", "histogram.png", "worst.png", "heat_maps.png")
NORMAL_FOLDER = "good"  # of MVTec and of data sets in its layout
PROJECTED = 32  # images that are projected at once
TRAINING = 5000  # training images whose codes are compared, and validation images whose quantile is a threshold


def _parser() -> Arguments:
    parser = Arguments("python -m genbench anomaly", description="Score images: a higher score is more anomalous.")
    add_model_arguments(parser)
    add_image_arguments(parser)
    parser.add_argument(
        "--by", choices=BY,
        help="reconstruction: mean squared error; likelihood: -log p(x); latent: distance of the code to the codes of "
        "training images; discriminator: negative logit; projection: error of the nearest image of a generator. "
        "Default: the first that the model supports",
    )  # fmt: skip
    parser.add_argument(
        "--normal", nargs="+", metavar="CLASS",
        help="classes that are normal, by name or number; all others are anomalous (default: `data.only_classes` of "
        f"the training data, or the folder `{NORMAL_FOLDER}`)",
    )  # fmt: skip
    parser.add_argument(
        "--threshold", type=float, help="images with a score above it are marked in the column above_threshold"
    )
    parser.add_argument(
        "--quantile", type=float, help="threshold: this quantile (0 to 1) of the scores of the run's validation images"
    )
    parser.add_argument("--worst", type=int, default=16, help="images with the highest scores to draw (default 16)")
    parser.add_argument("--smooth", type=float, help="standard deviation of the smoothing of heat maps, in pixels")
    parser.add_argument("--steps", type=int, help="steps of the optimization of `--by projection` (default 300)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the noise of a likelihood or projection (default 0)"
    )
    add_out_arguments(parser, "anomalies", "folder of the results")
    parser.epilog = "Options of the model's `log_likelihood`, such as --importance-samples of a VAE, are flags too."
    return parser


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    arguments, more = _parser().parse_known_args(argv)
    quiet()
    with removed_on_failure(arguments.out):
        return _run(arguments, more)


def _run(arguments: argparse.Namespace, more: list[str]) -> int:
    refuse_below(1, {"--worst": arguments.worst, "--steps": arguments.steps})
    refuse_below(0, {"--smooth": arguments.smooth})
    for name in ("threshold", "smooth"):
        if (value := getattr(arguments, name)) is not None and not math.isfinite(value):
            raise UserError(f"--{name} is {value}; it must be a finite number.")
    if arguments.threshold is not None and arguments.quantile is not None:
        raise UserError("--threshold and --quantile both set the threshold. Remove one of the two.")
    if arguments.quantile is not None and not 0 <= arguments.quantile <= 1:
        raise UserError(f"--quantile is {arguments.quantile}; it must be from 0 to 1, such as 0.95.")
    refuse_used(arguments.out, arguments.overwrite)
    refuse_blocked(arguments.out / name for name in FILES)

    import torch

    from genbench.analysis import anomaly
    from genbench.analysis.projection import project
    from genbench.analysis.variations import reconstruct
    from genbench.core.batch import from_stored

    model, contents = model_of(arguments)
    refuse_points(model, "anomaly")
    by = _by(model, arguments.by)
    trained_on = contents.get("data") or {}
    kept = (trained_on.get("arguments") or {}).get("only_classes")
    if kept and arguments.images is None and arguments.data is None:
        more = ["--data.only_classes=null", *more]  # the other classes are the anomalies
    inputs, more = images_of(arguments, more, model, contents)
    if arguments.steps is not None and by != "projection":
        raise UserError(f"--steps is for `--by projection`, but the score is {by}. Remove `--steps`.")
    options = own_options(model, more, *(("log_likelihood",) if by == "likelihood" else ()), flags=_parser().flags())
    options |= {} if arguments.steps is None else {"steps": arguments.steps}
    inputs = _with_folders(inputs, arguments.split or "test")
    anomalous, unknown = _anomalous(inputs, arguments.normal, kept)

    training = None
    if by == "latent":
        train = _of_run("train", contents, "--by latent compares with the codes of training images")
        training = list(train.batches(arguments.batch_size, str(model.device), "Reading training images"))

    def of(images: Inputs, title: str) -> Tensor:
        # a projection takes hundreds of steps, so the progress bar would hardly move with large batches
        most = PROJECTED if by == "projection" else arguments.batch_size
        batches = images.batches(min(arguments.batch_size, most), str(model.device), title)
        return anomaly.scores(model, batches, by, training=training, seed=arguments.seed, **options)

    threshold = arguments.threshold
    if arguments.quantile is not None:
        held_out = _of_run("val", contents, "--quantile uses the scores of validation images")
        threshold = float(torch.quantile(of(held_out, "Scoring validation images"), arguments.quantile))
    values = of(inputs, "Scoring")
    if not bool(torch.isfinite(values).all()):
        row = int((~torch.isfinite(values)).nonzero()[0])
        raise UserError(f"The score of image {inputs.name(row)} is {values[row]}: the model did not train well.")
    worst = values.argsort(descending=True, stable=True)[: arguments.worst]
    shows_where = by == "projection" or hasattr(model, "reconstruct")
    if shows_where:
        x = from_stored(inputs.images.images(worst)).to(model.device)
        if by == "projection":
            expected = project(model, x, seed=arguments.seed, **options).images
        else:
            expected = torch.cat([reconstruct(model, part) for part in x.split(arguments.batch_size)])
    _write_scores(arguments.out / "scores.csv", inputs, values, anomalous, threshold)
    _write_histogram(arguments.out / "histogram.png", values, anomalous, threshold, by)
    called = "row" if arguments.images is not None else f"{arguments.split or 'test'} image"
    _write_worst(arguments.out / "worst.png", inputs, values, anomalous, worst, by, called)
    if shows_where:
        expected_is = "projection" if by == "projection" else "reconstruction"
        titles = [f"{_title(inputs, row, called)}, score {float(values[row]):.4g}" for row in worst.tolist()]
        _write_heat_maps(arguments.out / "heat_maps.png", x, expected, expected_is, arguments.smooth, titles)
    else:  # of an earlier call
        (arguments.out / "heat_maps.png").unlink(missing_ok=True)
    written = FILES if shows_where else FILES[:3]
    print(
        f"{counted(len(inputs), 'image')} of {inputs.images.name} scored by {by} with {type(model).__name__} at "
        f"{model.images_seen:,} images seen -> {', '.join(str(arguments.out / name) for name in written)}"
    )
    if not shows_where:
        print(
            f"no heat maps: {type(model).__name__} has no `reconstruct` method, so it is not known where images differ."
        )
    if threshold is not None:
        print(_above(values > threshold, threshold, anomalous))
    if anomalous is None:
        print(f"no AUROC: {unknown}.")
    elif bool((anomalous == anomalous[0]).all()):
        kind = "anomalous" if anomalous[0] else "normal"
        every = "the only image is" if len(inputs) == 1 else f"all {len(inputs):,} images are"
        print(f"no AUROC: {every} {kind}, and it compares normal with anomalous images.")
    else:
        print(
            f"AUROC {anomaly.auroc(values, anomalous):.4f}, average precision "
            f"{anomaly.average_precision(values, anomalous):.4f}: {int(anomalous.sum()):,} anomalous and "
            f"{counted(int((~anomalous).sum()), 'normal image')}"
        )
    return 0


def _by(model: Any, given: str | None) -> Any:
    """The score to compute.

    Raises:
        UserError: the model does not support it. The message lists the models that do, or the scores of this one.
    """
    from genbench.analysis.anomaly import METHODS, refusal, supported

    able = supported(model)
    if given is None:
        if not able:
            reasons = "; ".join(f"`--by {by}`: it {refusal(model, by)}" for by in METHODS)
            raise UserError(f"{type(model).__name__} cannot score images. {reasons}.")
        return able[0]
    if (why := refusal(model, given)) is not None:  # type: ignore[arg-type]  # argparse checks the choices
        instead = f" It can be used with `--by {'` or `--by '.join(able)}`." if able else ""
        try:
            needs = METHODS[given]  # type: ignore[index]
            refuse_without(model, f"anomaly --by {given}", *needs, real_codes=given in ("latent", "projection"))
        except UserError as error:
            raise UserError(f"{error}{instead}") from error
        raise UserError(f"{type(model).__name__} {why}, so it cannot be used with `--by {given}`.{instead}")
    return given


def _of_run(split: str, contents: dict[str, Any], why: str) -> Inputs:
    """At most 5,000 images of a split of the run's own data."""
    from genbench.cli.evaluate_data import prepared_data
    from genbench.evaluation.images import SplitImages

    if not contents.get("data"):
        raise UserError(f"{why}, but this checkpoint does not record its data. Use a different score or `--threshold`.")
    return Inputs(SplitImages(prepared_data(contents, []), split, TRAINING), None, ())


def _with_folders(inputs: Inputs, split: str) -> Inputs:
    """The inputs, with the names of a data set's files, and with labels from the folders of an MVTec test set."""
    import torch

    from genbench.data.base import ImageData

    names, label, classes = inputs.names, inputs.label, inputs.classes
    data, rows = getattr(inputs.images, "data", None), getattr(inputs.images, "rows", None)
    if names is None and isinstance(data, ImageData) and rows is not None:
        every = data.names(split)  # type: ignore[arg-type]  # argparse checks the split
        names = None if every is None else [every[row] for row in rows.tolist()]
    if label is None and names is not None:
        folders = [Path(name).parent.name for name in names]
        if NORMAL_FOLDER in folders:  # the training images are all good, so the folders are not classes
            classes = tuple(sorted(set(folders)))
            label = torch.tensor([classes.index(folder) for folder in folders])
    return Inputs(inputs.images, label, classes, names)


def _anomalous(inputs: Inputs, normal: list[str] | None, kept: list[str] | None) -> tuple[Tensor | None, str]:
    """Whether each image is anomalous, bool [N]; or None and the reason why that is not known."""
    import torch

    from genbench.core.conditions import class_number

    name, classes = inputs.images.name, inputs.classes
    if inputs.label is None:
        if normal is not None:
            raise UserError(
                f"--normal {' '.join(normal)} needs the class of each image, but {name} has no classes. Put the images "
                "of each class into a folder of its own, or remove `--normal`."
            )
        return None, f"{name} has no classes, so it is not known which images are anomalous"
    if normal is None:
        if kept and set(kept) <= set(classes):
            normal = kept
        elif NORMAL_FOLDER in classes:
            normal = [NORMAL_FOLDER]
        else:
            return None, f"it is not known which classes are normal. Set `--normal`, from: {some(classes, 10)}"
    numbers = [class_number(given, classes, "--normal") for given in normal]
    return ~torch.isin(inputs.label, torch.tensor(numbers)), ""


def _above(above: Tensor, threshold: float, anomalous: Tensor | None) -> str:
    """A line about the images above the threshold."""
    have = "has" if len(above) == 1 else "have"
    line = f"{int(above.sum()):,} of {counted(len(above), 'image')} {have} a score above {threshold:.6g}"
    if anomalous is None:
        return line
    kinds = [("anomalous", above[anomalous]), ("normal", above[~anomalous])]
    return f"{line}: {' and '.join(f'{int(of.sum()):,} of {len(of):,} {kind}' for kind, of in kinds)}"


# ---- output -----------------------------------------------------------------------------------------------------


def _write_scores(path: Path, inputs: Inputs, values: Tensor, anomalous: Tensor | None, limit: float | None) -> None:
    from genbench.core.files import write_csv

    columns = ["row" if inputs.names is None else "file", "score"]
    columns += ["label"] if inputs.label is not None else []
    columns += ["anomalous"] if anomalous is not None else []
    columns += ["above_threshold"] if limit is not None else []
    rows = []
    for row, value in enumerate(values.tolist()):
        cells = [inputs.name(row), repr(value)]
        if inputs.label is not None:
            cells.append(inputs.class_name(row))
        if anomalous is not None:
            cells.append(str(int(anomalous[row])))
        if limit is not None:
            cells.append(str(int(value > limit)))
        rows.append(cells)
    write_csv(path, columns, rows)


def _write_histogram(path: Path, values: Tensor, anomalous: Tensor | None, limit: float | None, by: str) -> None:
    """Histograms of the scores of normal and anomalous images, each normalized to area 1."""
    import numpy as np
    from matplotlib.figure import Figure

    from genbench.core.files import write_png
    from genbench.core.image_grid import rendered

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel=SCORES[by], ylabel="density")
    parts = {"images": values} if anomalous is None else {"normal": values[~anomalous], "anomalous": values[anomalous]}
    bins = np.histogram_bin_edges(values.numpy(), 50).tolist()
    for (kind, part), color in zip(parts.items(), ("tab:blue", "tab:red"), strict=False):
        if len(part):
            axes.hist(part.numpy(), bins, density=True, alpha=0.6, color=color, label=f"{kind} ({len(part):,})")
    if limit is not None:
        axes.axvline(limit, color="0.2", linestyle="--", label=f"threshold {limit:.4g}")
    axes.legend()
    write_png(path, rendered(figure))


def _title(inputs: Inputs, row: int, called: str) -> str:
    """The file of an image, or its number after what such images are `called`."""
    if inputs.names is None:
        return f"{called} {inputs.name(row)}"
    # bytes of a name that is not valid UTF-8 cannot be drawn, and line breaks would move the image
    return "".join(c if c.isprintable() else "?" for c in Path(inputs.name(row)).name[-18:])


def _write_worst(
    path: Path, inputs: Inputs, values: Tensor, anomalous: Tensor | None, worst: Tensor, by: str, called: str
) -> None:
    """The images with the highest scores, the highest first, each under its file or row, class and score."""
    from matplotlib.figure import Figure

    from genbench.core.files import write_png
    from genbench.core.image_grid import rendered

    columns = math.ceil(math.sqrt(len(worst)))
    rows = math.ceil(len(worst) / columns)
    figure = Figure(figsize=(1.8 * columns, 2.2 * rows + 0.6), layout="constrained")
    heading = f"highest scores first; score: {SCORES[by]}"
    heading += "" if anomalous is None else "; red: anomalous, blue: normal"
    figure.suptitle(fill(heading, 26 * columns), fontsize=8)
    images = inputs.images.images(worst)
    for k, row in enumerate(worst.tolist()):
        axes = figure.add_subplot(rows, columns, k + 1)
        axes.axis("off")
        image = images[k].permute(1, 2, 0).numpy()
        axes.imshow(image[..., 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
        title = _title(inputs, row, called)
        if inputs.label is not None:
            title += f"\nclass {inputs.class_name(row)[:18]}"
        color = "black" if anomalous is None else "tab:red" if anomalous[row] else "tab:blue"
        axes.set_title(f"{title}\nscore {float(values[row]):.4g}", fontsize=8, color=color, parse_math=False)
    write_png(path, rendered(figure))


def _write_heat_maps(
    path: Path, x: Tensor, expected: Tensor, expected_is: str, smooth: float | None, names: list[str]
) -> None:
    """For each of the worst images: the image, its reconstruction, the heat map, and the heat map over the image.

    All heat maps have the same scale, from 0 to the largest error. A row has two of more than four images.

    Args:
        names: Titles of the images
    """
    import torch
    from matplotlib import colormaps
    from PIL import Image

    from genbench.analysis.anomaly import error_map
    from genbench.core.batch import to_uint8
    from genbench.core.files import write_png
    from genbench.core.image_grid import arranged, enlarged, titled

    heat = error_map(x, expected, smooth).cpu()
    level = (heat / heat.max().clamp(min=1e-12))[:, None]  # [B, 1, H, W] in [0, 1]
    colors = torch.from_numpy(colormaps["inferno"](level[:, 0].numpy())[..., :3]).permute(0, 3, 1, 2).float()
    image, again = (to_uint8(each).cpu().expand(-1, 3, -1, -1) for each in (x, expected))
    over = 0.7 * (1 - level) * image + level * 255 * colors  # the image is darker, so that white does not hide the map
    columns = torch.stack([image, again, (255 * colors).round().byte(), over.round().byte()], 1)
    titles = ["image", expected_is, "squared error", "error over image"]
    halves = 1 if len(x) <= 4 else 2
    grids = [arranged(columns[k::halves].flatten(0, 1), 4) for k in range(halves)]
    width, height = grids[0].size
    side = round(1000 * max(width, height) / max(halves * width, height))
    sheets = [titled(enlarged(grid, side), titles, names[k::halves]) for k, grid in enumerate(grids)]
    whole = Image.new("RGB", (sum(sheet.width for sheet in sheets), sheets[0].height), "white")
    for k, sheet in enumerate(sheets):
        whole.paste(sheet, (sum(before.width for before in sheets[:k]), 0))
    write_png(path, whole)
