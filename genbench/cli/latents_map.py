"""latents map: codes of images as points of a plane, colored by class."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from genbench.cli.flags import add_model_arguments
from genbench.cli.inputs import (
    Inputs,
    add_image_arguments,
    add_label_argument,
    add_out_arguments,
    encoded,
    images_of,
    labels_for_encoder,
    model_of,
    refuse_blocked,
    refuse_used,
    refuse_without,
)
from genbench.cli.latents_shared import refuse_unknown
from genbench.core.errors import UserError, counted, refuse_seed_above_32_bits

if TYPE_CHECKING:
    from torch import Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `latents map`."""
    add_model_arguments(parser)
    add_image_arguments(parser, n=10_000)
    add_vector_arguments(parser)
    parser.add_argument(
        "--method", choices=("pca", "tsne", "umap"), default="tsne", help="how the codes are mapped (default tsne)"
    )
    parser.add_argument("--perplexity", type=float, help="for tsne: roughly the number of neighbors (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the map (default 0)")
    add_out_arguments(parser, "map", "folder of the results")


def add_vector_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select the vector of each image."""
    parser.add_argument(
        "--on",
        choices=("codes", "pixels"),
        default="codes",
        help="use the codes (default), or the pixels as a baseline",
    )
    add_label_argument(parser)


def vectors_of(arguments: argparse.Namespace, more: list[str], verb: str) -> tuple[Inputs, Tensor, str, float]:
    """The images, a vector [N, D] of real numbers for each, what the vectors are, and the seconds of encoding.

    Args:
        more: Flags that the command does not know: of the images, or else an error

    Raises:
        UserError: the model cannot encode, or its codes are codebook indices.
    """
    import torch

    model, contents = model_of(arguments)
    if arguments.on == "codes":
        refuse_without(model, verb, "encode", real_codes=True)
        if model.latent_dtype == "int64":
            raise UserError(
                f"The codes of {type(model).__name__} are codebook indices, which have no distances between them. Use "
                "a model with real codes, such as VAE or ConvAutoencoder, or `--on pixels`."
            )
    inputs, more = images_of(arguments, more, model, contents)
    refuse_unknown(model, more, arguments)
    if arguments.on == "pixels" and arguments.label is not None:
        raise UserError("--label is for codes, but --on pixels was set. Remove one of the two.")
    start = time.perf_counter()
    if arguments.on == "codes":
        condition = labels_for_encoder(model, inputs, arguments.label)
        vectors = encoded(model, inputs, condition, arguments.batch_size).float().cpu().flatten(1)
    else:
        vectors = torch.cat(list(inputs.batches(arguments.batch_size, "cpu", "Reading"))).flatten(1)
    what = f"codes of {type(model).__name__}" if arguments.on == "codes" else "pixels"
    return inputs, vectors, f"{what} ({counted(vectors.shape[1], 'number')})", time.perf_counter() - start


def run(arguments: argparse.Namespace, more: list[str]) -> int:
    """Run `latents map`; `more` are the flags of the images."""
    from rich.progress import Progress

    from genbench.analysis import embedding
    from genbench.analysis.map_page import classes_in, page, plot
    from genbench.core.files import write, write_csv, write_png

    refuse_seed_above_32_bits(arguments.seed)
    if arguments.perplexity is not None and arguments.method != "tsne":
        raise UserError(f"--perplexity is for `--method tsne`; --method is {arguments.method}. Remove --perplexity.")
    perplexity = 30.0 if arguments.perplexity is None else arguments.perplexity
    refuse_used(arguments.out, arguments.overwrite, "The map")
    refuse_blocked(arguments.out / name for name in ("map.png", "map.html", "map.csv"))
    if arguments.method == "umap":
        embedding.check(embedding.LEAST, "umap")  # whether it is installed
    inputs, vectors, what, encoding = vectors_of(arguments, more, "latents map")
    embedding.check(len(inputs), arguments.method, perplexity)
    start = time.perf_counter()
    with Progress(transient=True) as bar:
        title = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}[arguments.method]
        task = bar.add_task(title, total=1.0 if arguments.method == "tsne" else None)
        points = embedding.embed(
            vectors, arguments.method, perplexity=perplexity, seed=arguments.seed,
            progress=lambda done: bar.update(task, completed=done),
        )  # fmt: skip
    mapping = time.perf_counter() - start
    out, names = arguments.out, [inputs.name(row) for row in range(len(inputs))]
    label, classes = classes_in(inputs.label, inputs.classes, len(inputs))
    heading = f"{title} of {counted(len(inputs), 'image')} of {inputs.images.name}: {what}"
    figure = plot(points, label, classes, heading)
    write_png(out / "map.png", figure)
    html, note = page(points, label, classes, names, heading, inputs.images)
    write(out / "map.html", lambda file: file.write(html.encode("utf-8", "replace")))
    write_csv(
        out / "map.csv", ["file", "x", "y", "label"],
        ([names[row], f"{x:.6g}", f"{y:.6g}", inputs.class_name(row)] for row, (x, y) in enumerate(points.tolist())),
    )  # fmt: skip
    print(f"{heading} -> {out}: map.png, map.html and map.csv")
    for line in note:
        print(line)
    print(f"encoding {encoding:.1f} s, {title} {mapping:.1f} s ({encoding / (encoding + mapping):.0%} for encoding)")
    return 0
