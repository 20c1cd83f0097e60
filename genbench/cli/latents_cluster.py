"""latents cluster: group images by their codes, and compare the groups with the classes."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.cli.flags import add_model_arguments
from genbench.cli.inputs import Inputs, add_image_arguments, add_out_arguments, refuse_blocked, refuse_used
from genbench.cli.latents_map import add_vector_arguments, vectors_of
from genbench.core.errors import UserError, counted, refuse_below, refuse_seed_above_32_bits

if TYPE_CHECKING:
    from genbench.analysis.clustering import Clusters

NEAREST = 64  # images in the picture of a cluster
ROW = 12  # images of each cluster in the overview
OVERVIEW = 50  # clusters in the overview


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `latents cluster`."""
    add_model_arguments(parser)
    add_image_arguments(parser, n=10_000)
    add_vector_arguments(parser)
    parser.add_argument("--k", type=int, help="number of clusters (default: number of classes)")
    parser.add_argument(
        "--method", choices=("kmeans", "mixture"), default="kmeans", help="kmeans (default) or a mixture of Gaussians"
    )
    parser.add_argument(
        "--covariance", choices=("full", "tied", "diag", "spherical"),
        help="shape of the Gaussians of a mixture (default full)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial clusters (default 0)")
    add_out_arguments(parser, "clusters", "folder of the results")


def run(arguments: argparse.Namespace, more: list[str]) -> int:
    """Run `latents cluster`; `more` are the flags of the images."""
    from rich.progress import Progress

    from genbench.analysis.clustering import agreement, cluster

    refuse_below(1, {"--k": arguments.k})
    if arguments.covariance is not None and arguments.method != "mixture":
        raise UserError("--covariance is for `--method mixture`. Add `--method mixture`, or remove --covariance.")
    covariance: Any = arguments.covariance or "full"
    refuse_seed_above_32_bits(arguments.seed)
    refuse_used(arguments.out, arguments.overwrite, "The clusters")
    refuse_blocked(arguments.out / name for name in ("assignments.csv", "clusters.png"))
    if arguments.k is not None and arguments.n is not None and arguments.k > arguments.n:
        raise UserError(f"--k is {arguments.k}, but --n allows only {arguments.n} images. Use fewer clusters.")
    inputs, vectors, what, _ = vectors_of(arguments, more, "latents cluster")
    k = arguments.k if arguments.k is not None else len(inputs.classes)
    if k == 0:
        raise UserError(f"{inputs.images.name} has no classes. Set the number of clusters with `--k`.")
    if k > len(inputs):
        set_by = f"--k is {k}" if arguments.k is not None else f"There are {k} classes, so {k} clusters"
        raise UserError(f"{set_by}, but there are only {len(inputs)} images. Use fewer clusters, or more images.")
    refuse_blocked(arguments.out / _picture(number, k) for number in range(k))
    with Progress(transient=True) as bar:
        bar.add_task("Clustering", total=None)
        found = cluster(vectors, k, arguments.method, covariance=covariance, seed=arguments.seed)
    before = _written_before(arguments.out)
    pictures = _write_pictures(arguments.out, inputs, found, k)
    _write_table(arguments.out, inputs, found)
    sizes = found.cluster.bincount(minlength=k).tolist()
    for name in before - {_picture(number, k) for number in range(k) if pictures and sizes[number]}:
        (arguments.out / name).unlink()
    title = "k-means" if arguments.method == "kmeans" else f"mixture of {covariance} Gaussians"
    print(f"{title}: {counted(k, 'cluster')} of {counted(len(inputs), 'image')} of {inputs.images.name}: {what}")
    print(
        f"{min(sizes):,} to {counted(max(sizes), 'image')} in a cluster -> {arguments.out}: assignments.csv{pictures}"
    )
    if inputs.label is None or not bool((given := inputs.label >= 0).any()):
        print("no NMI, ARI and accuracy: the images have no labels")
        return 0
    scores = agreement(found.cluster[given], inputs.label[given].to(found.cluster.dtype))
    print(f"NMI {scores['nmi']:.4f}, ARI {scores['ari']:.4f}, accuracy by best assignment {scores['accuracy']:.4f}")
    return 0


def _picture(number: int, k: int) -> str:
    """The file name of the picture of one of k clusters."""
    return f"cluster-{number:0{len(str(k - 1))}d}.png"


def _written_before(out: Path) -> set[str]:
    """The pictures of an earlier call, which had as many clusters as its table in the output folder says."""
    try:
        with open(out / "assignments.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
            numbers = [int(row.get("cluster") or "") for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error):
        return set()
    k = max(numbers, default=-1) + 1
    pictures = (path.name for path in out.glob("cluster-*.png") if path.is_file())
    return {name for name in pictures if (n := name[8:-4]).isdecimal() and int(n) < k and name == _picture(int(n), k)}


def _write_table(out: Path, inputs: Inputs, found: Clusters) -> None:
    """Write the cluster of each image, its distance to the center or its probability, and its label."""
    from genbench.core.files import write_csv

    score = ("distance", found.distance) if found.probability is None else ("probability", found.probability)
    rows = zip(range(len(inputs)), found.cluster.tolist(), score[1].tolist(), strict=True)
    write_csv(
        out / "assignments.csv", ["file", "cluster", score[0], "label"],
        ([inputs.name(row), k, f"{value:.6g}", inputs.class_name(row)] for row, k, value in rows),
    )  # fmt: skip


def _write_pictures(out: Path, inputs: Inputs, found: Clusters, k: int) -> str:
    """Write a grid of each cluster's images nearest to its center, and an overview with one row for each cluster.

    Returns the names of the files, for a message. Points have no pictures.
    """
    import torch

    from genbench.core.files import write_png
    from genbench.core.image_grid import arranged, enlarged, titled

    if len(inputs.images.shape) != 3:
        return ""
    overview, names = [], []
    for number in range(k):
        rows = found.nearest(number, NEAREST)
        if not len(rows):
            continue
        images = inputs.images.images(rows)
        sheet = enlarged(arranged(images, min(8, len(images))))
        write_png(out / _picture(number, k), sheet)
        blank = images.new_full((max(0, ROW - len(images)), *images.shape[1:]), 40)
        names.append(f"cluster {number} ({counted(int((found.cluster == number).sum()), 'image')})")
        overview.append(torch.cat([images[:ROW], blank]))
    whole = enlarged(arranged(torch.cat(overview[:OVERVIEW]), ROW))
    write_png(out / "clusters.png", titled(whole, ["nearest to the center first"], names[:OVERVIEW]))
    return ", clusters.png and a picture of each cluster"
