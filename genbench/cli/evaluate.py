"""evaluate and test: measure a checkpoint or images, and write a record."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genbench.cli import configs
from genbench.cli.evaluate_data import data_of, options_of, root_of, split_flags
from genbench.cli.flags import (
    Arguments,
    add_weights_arguments,
    find_checkpoint,
    import_modules,
    own_options,
    usable_device,
)
from genbench.cli.quiet import quiet
from genbench.cli.run_folders import run_of
from genbench.core import yaml_file
from genbench.core.errors import UserError, did_you_mean, refuse_below
from genbench.core.files import PRETRAINED, refuse_unwritable
from genbench.evaluation import protocol as protocols


def _parser(verb: str) -> Arguments:
    parser = Arguments(
        f"python -m genbench {verb}", allow_abbrev=False,
        description="Evaluate a trained model or a set of images under a protocol, and write a record.",
    )  # fmt: skip
    what = parser.add_argument_group("what to evaluate (exactly one of these)")
    what.add_argument("--ckpt", help="checkpoint, run folder, last / best, or pretrained/NAME")
    what.add_argument("--images", metavar="PATH", help="folder, zip, .npz or .npy of images; --images.KEY VALUE "
                      "sets how they are read: key, layout, severity, range, ...")  # fmt: skip
    what.add_argument("--baseline", action="store_true", help="real images of a different split, as samples")
    against = parser.add_argument_group("what to compare with")
    against.add_argument("--data", metavar="NAME", help="data set, with its arguments as --data.KEY VALUE (default: "
                         "the training data of the model)")  # fmt: skip
    against.add_argument("--reference", metavar="PATH", help="images, as for --images; or an .npz of mu and "
                         "sigma, for FID only")  # fmt: skip
    against.add_argument("--config", metavar="FILE", help="take data and protocol from this config")
    how = parser.add_argument_group("how to evaluate (flags that change a protocol are added to its name)")
    how.add_argument("--protocol", help=f"one of {', '.join(protocols.names())}, or a YAML file (default: from the "
                     "run's config, else fid10k-test)")  # fmt: skip
    how.add_argument("--extractor", help="network whose features are compared: mnistnet, digitsnet, shapesnet, "
                     "captionnet, inception, dinov2, vgg-random, torchvision:NAME or my.module:Network (default: "
                     "set by the data set)")  # fmt: skip
    how.add_argument("--extractor.weights", dest="weights", metavar="PATH", help="weights of the extractor")
    how.add_argument("--generated", type=int, metavar="N", help="number of samples")
    how.add_argument("--real", type=int, metavar="N", help="maximum number of real images")
    how.add_argument("--size", type=int, metavar="N", help="resize images of --images and --reference to N x N")
    how.add_argument("--channels", type=int, choices=(1, 3), help="convert these images to gray (1) or RGB (3)")
    how.add_argument(
        "--resize-mode",
        choices=("crop", "pad", "stretch", "none"),
        help="how to resize, see ImageFolder (default: crop)",
    )
    how.add_argument("--enlarge", action="store_true", default=None, help="also resize images smaller than --size")
    how.add_argument("--metrics", nargs="+", metavar="GROUP", help="groups of metrics: "
                     f"{', '.join(protocols.GROUPS)}, or the name of your own, after `--import`")  # fmt: skip
    how.add_argument("--kid-subset-size", type=int, metavar="N", help="images in each subset of the kernel distance")
    how.add_argument("--neighbors-k", type=int, metavar="K", help="k of precision, recall, density and coverage")
    how.add_argument("--seed", type=int, help="seed of the samples")
    add_weights_arguments(how)
    parser.add_argument("--batch-size", type=int, metavar="N", help="images generated at once; fewer need less memory")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: cuda if available)")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="processes that share the work")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the record (default: the run's records/)")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    parser.add_argument("--name", help="name on the leaderboard; with --ckpt last or best, name of the run")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--import", metavar="MODULE", help="first import a module with your own model, data or metrics")
    parser.epilog = "A model's own sampling options are flags too; an unknown flag lists them."
    return parser


def main(verb: str, argv: list[str]) -> int:
    given_in_full, argv = argv, import_modules(argv)
    arguments, more = _parser(verb).parse_known_args(argv)
    given = [name for name in ("ckpt", "images", "baseline") if getattr(arguments, name)]
    if len(given) != 1:
        raise UserError(
            f"{verb} needs exactly one of `--ckpt PATH`, `--images PATH` and `--baseline`, but "
            f"{'none was set' if not given else 'got --' + ' and --'.join(given)}."
        )
    if arguments.reference and any(flag.startswith("--data.") for flag in more):
        raise UserError("`--data.…` belongs to `--data`, but `--reference` was set. Use `--reference.…` instead.")
    if arguments.data and arguments.reference:
        raise UserError("Use either `--data NAME` or `--reference PATH` to compare with, not both.")
    refuse_below(1, {"--devices": arguments.devices, "--batch-size": arguments.batch_size})
    if arguments.config:
        arguments.config = _read_config(arguments.config)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # torchrun has started the processes
        return _measure_together(arguments, more, int(os.environ.get("LOCAL_RANK", 0)))
    if arguments.devices > 1:
        return _spawn(arguments, more, given_in_full)
    return _measure(arguments, more)


def _read_config(name: str) -> dict[str, Any]:
    path = configs.named(name)
    config = yaml_file.read(path, "config of an experiment")
    data = config.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("class_path"), str):
        raise UserError(f"{path} is not the config of an experiment: it needs `data` with a `class_path`.")
    return config


def _measure_together(arguments: argparse.Namespace, more: list[str], local_rank: int, **meeting: Any) -> int:
    """Measure as one of several processes, each on its own GPU if available; `init_process_group` gets `meeting`."""
    import torch
    import torch.distributed as dist

    cuda = arguments.device != "cpu" and torch.cuda.is_available()
    if cuda:
        arguments.device = f"cuda:{local_rank}"
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", **meeting)
    try:
        return _measure(arguments, more)
    finally:
        dist.destroy_process_group()


def _spawn(arguments: argparse.Namespace, more: list[str], argv: list[str]) -> int:
    import torch
    import torch.multiprocessing as mp

    if ":" in arguments.device:
        raise UserError(
            f"--device {arguments.device} is one device, but --devices is {arguments.devices}. Remove one of the flags."
        )
    gpus = torch.cuda.device_count() if arguments.device != "cpu" else 0
    if gpus and arguments.devices > gpus:
        raise UserError(f"--devices is {arguments.devices}, but this machine has {gpus} GPUs.")
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # hide messages about terminated processes
    with tempfile.TemporaryDirectory() as folder:
        try:
            mp.start_processes(_child, (arguments, more, argv, folder), arguments.devices, start_method="spawn")
        except mp.ProcessExitedException as error:
            return error.exit_code or 1
    return 0


def _child(rank: int, arguments: argparse.Namespace, more: list[str], argv: list[str], folder: str) -> None:
    import torch

    from genbench.cli import guarded

    torch.set_num_threads(max(1, torch.get_num_threads() // arguments.devices))

    def measure() -> int:
        import_modules(argv)  # this process has not imported the modules of the first one
        meeting = {"init_method": f"file://{folder}/meet", "rank": rank, "world_size": arguments.devices}
        return _measure_together(arguments, more, rank, **meeting)

    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # only the first process prints a message
    status = guarded(measure, quiet=rank > 0)
    if status:
        sys.exit(status)


def _measure(arguments: argparse.Namespace, more: list[str]) -> int:
    from genbench.core import ranks

    with warnings.catch_warnings():
        quiet()
        warnings.filterwarnings("ignore")
        if ranks.rank() == 0:  # warnings about skipped files, detected ranges, ...
            warnings.filterwarnings("always", category=UserWarning, module="genbench")
        return _measured(arguments, more)


def _measured(arguments: argparse.Namespace, more: list[str]) -> int:
    import genbench.data
    import genbench.models  # noqa: F401  registers genbench's classes
    from genbench.core import checkpoint_io, ranks
    from genbench.evaluation import checkpoint_facts
    from genbench.evaluation.evaluate import evaluate, silent
    from genbench.evaluation.galleries import Gallery
    from genbench.evaluation.images import open_images, open_reference
    from genbench.evaluation.statistics import Statistics
    from genbench.suites.suite_folder import about

    images_flags, more = split_flags(more, "--images.")
    reference_flags, more = split_flags(more, "--reference.")
    data_flags, own = split_flags(more, "--data.")
    images_options = options_of("--images", arguments.images, images_flags)
    reference_options = options_of("--reference", arguments.reference, reference_flags)
    config: dict[str, Any] = {}
    run = training = trained_on = None
    named_by_user = False
    out = arguments.runs / "records"
    if arguments.ckpt:
        path = find_checkpoint(arguments.ckpt, arguments.runs, arguments.name)
        contents = checkpoint_io.read(path)
        subject: Any = checkpoint_io.rebuild(contents, path, raw=arguments.raw, ema=arguments.ema)
        run, training = checkpoint_facts.facts(contents, path, subject.origin[1])
        run |= about(run_of(path))
        config, trained_on = run["config"], contents.get("data")
        if path.parent != PRETRAINED:
            out = (run_of(path) or path.parent) / "records"
        name = arguments.name if arguments.ckpt not in ("last", "best") else None
        options = own_options(subject, own, "sample", "log_likelihood", flags=_parser("evaluate").flags())
    else:
        if own:
            near = did_you_mean(own[0].partition("=")[0], _parser("evaluate").flags())
            raise UserError(f"Unknown option {own[0]}. `--help` lists all options.{near}")
        subject = open_images(arguments.images, **images_options) if arguments.images else None
        options, name = {}, arguments.name
    if arguments.config:
        config, named_by_user = arguments.config, True
        trained_on = {"class": config["data"]["class_path"], "arguments": config["data"].get("init_args") or {}}
    out = arguments.out or out
    refuse_unwritable(out, "The record")
    protocol = protocols.load(arguments.protocol or config.get("protocol") or "fid10k-test").changed(
        extractor=arguments.extractor, generated=arguments.generated, real=arguments.real, seed=arguments.seed,
        metrics=tuple(arguments.metrics) if arguments.metrics else None, weights="raw" if arguments.raw else None,
        size=arguments.size, channels=arguments.channels, resize_mode=arguments.resize_mode, enlarge=arguments.enlarge,
        kid_subset_size=arguments.kid_subset_size, neighbors_k=arguments.neighbors_k,
    )  # fmt: skip
    if arguments.ckpt:
        _refuse_unused(subject, options, protocol)
    count = protocol.generated if subject is None or arguments.ckpt else min(len(subject), protocol.generated)
    _refuse_large_subsets(arguments.kid_subset_size, count, "to measure")
    _refuse_large_subsets(arguments.kid_subset_size, protocol.real, "to compare with")
    data = (
        open_reference(arguments.reference, **reference_options)
        if arguments.reference
        else data_of(arguments.data, data_flags, trained_on, root_of(config), named_by_user)
    )
    if arguments.reference and not isinstance(data, Statistics):
        _refuse_large_subsets(arguments.kid_subset_size, len(data), "to compare with")
    subject, data = _in_one_range(subject, data, ((trained_on or {}).get("arguments") or {}).get("range"))
    pictures = Gallery()
    record = evaluate(
        subject, data, protocol, weights=arguments.weights, sampling=options, run=run, training=training,
        name=name, device=usable_device(arguments.device), batch_size=arguments.batch_size,
        progress=_bars if ranks.rank() == 0 else silent, pictures=pictures,
    )  # fmt: skip
    if ranks.rank() == 0:
        _hand_over(record, pictures, out, arguments)
    return 0


def _refuse_unused(model: Any, given: dict[str, Any], protocol: protocols.Protocol) -> None:
    """Raise UserError if an option of the model was set that none of the protocol's metrics uses."""
    from genbench.core.capabilities import options
    from genbench.evaluation.evaluators import GENERATION
    from genbench.evaluation.likelihood import LogLikelihood, not_asked

    for evaluator, method, what in (
        (GENERATION, "sample", "samples"),
        (LogLikelihood(), "log_likelihood", "likelihood"),
    ):
        own = options(getattr(model, method)) if hasattr(model, method) else {}
        unused = [f"--{name.replace('_', '-')}" for name, default in own.items() if given[name] != default]
        if unused and not evaluator.applies(model, protocol):
            raise UserError(
                f"{unused[0]} has no effect, since the metrics {', '.join(protocol.metrics)} use no {what}. Remove it, "
                "or set other `--metrics`."
            )
        if unused and method == "log_likelihood" and (why := not_asked(model, given)):
            raise UserError(f"{unused[0]} has no effect, since the likelihood is not computed: {why}.")


def _in_one_range(subject: Any, data: Any, trained: str | None) -> tuple[Any, Any]:
    """Read reference files with the range of the training images. Otherwise, read the files to measure with the range
    of the reference, if both have the same data type and neither range was set."""
    from genbench.data.base import ImageData
    from genbench.data.ranges import of_domain
    from genbench.evaluation.images import FileImages

    if isinstance(data, FileImages) and (range := of_domain(trained, "B")) is not None:
        return subject, data.by(range, "the training images")
    if isinstance(subject, FileImages) and isinstance(data, (FileImages, ImageData)):
        range = data.range if isinstance(data, FileImages) else data.ranges()[0]
        if range.only is not None and range.only == subject.range.only:
            subject = subject.by(range, data.name)
    return subject, data


def _hand_over(record: Any, pictures: Any, out: Path, arguments: argparse.Namespace) -> None:
    """Write and print the record. If it cannot be written, it is still printed.

    Raises:
        UserError: a file could not be written. The record was printed as JSON, or the message says where it is.
    """
    from genbench.core.files import NotWritten, remove_orphans
    from genbench.leaderboard import record as records

    written, whole = records.path_of(record, out), arguments.json
    said, cause = [], None
    for folder in out.glob("*/"):  # image folders of records; no other process writes to them
        remove_orphans(folder)
    try:
        pictures.write(written.with_suffix(""))  # written before the record, so that no record lacks images
    except NotWritten as error:
        said, cause = [f"Images of this record are missing: {error}"], error
    try:
        records.write(record, out)
    except NotWritten as error:
        said, cause = [*said, f"The record {error}"], error
        whole = whole or error.elsewhere is None
    print(json.dumps(record.to_dict(), indent=1)) if whole else show(record)
    if cause is not None:
        raise NotWritten(" ".join(said)) from cause
    if not whole:
        board = arguments.runs if arguments.runs in written.parents else written.parent
        print(f"Record: {written}\nLeaderboard: python -m genbench leaderboard {board}")


def _refuse_large_subsets(size: int | None, count: int, whose: str) -> None:
    """Raise UserError if the kernel distance would need subsets larger than the number of images."""
    if size is not None and size > count:
        raise UserError(
            f"--kid-subset-size is {size:,}, but there are only {count:,} images {whose}. Use a smaller size, or "
            "more images."
        )


def _bars(items: Iterable, title: str) -> Iterable:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, title, transient=True, console=console, disable=not console.is_terminal)


def show(record: Any) -> None:
    """Print the record as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from genbench.leaderboard.columns import bound_sign

    console = Console(highlight=False, soft_wrap=True)
    protocol, run = record.protocol, record.run or {}
    which = f", {run['checkpoint']} at {run['images_seen']:,} images seen, {run['weights']} weights" if run else ""
    console.print(escape(f"{record.model['name']}{which}"))
    reference = protocol["reference"]
    of = "statistics" if reference["images"] is None else f"{reference['images']:,} images"
    console.print(
        escape(
            f"against {of} of {record.data['name']} ({protocol['split']}) by {protocol['extractor']['name']}, protocol "
            f"{protocol['name']}"
        )
    )
    table = Table("score", "value", "images")
    for column in table.columns:
        column.no_wrap = True
    table.columns[1].justify = table.columns[2].justify = "right"
    blank = []
    for name, entry in record.metrics.items():
        arrow = {"lower": "↓", "higher": "↑"}.get(entry["better"], "")
        value = "—" if entry["value"] is None else f"{entry['value']:.5g}"
        if entry["value"] is not None and entry["std"] is not None:
            value += f" ± {entry['std']:.2g}"
        if entry["value"] is not None and (sign := bound_sign(entry["better"], entry.get("bound"))):
            value = sign + value
        if entry["value"] is not None and entry.get("bound") not in (None, "exact"):
            blank.append(f"{value} {name}: {entry['bound']}")
        if entry["note"]:
            blank.append(f"{'—' if entry['value'] is None else value} {name}: {entry['note']}")
        table.add_row(f"{name} {arrow}".rstrip(), value, f"{entry['n']:,}")
    console.print(table)
    for line in blank:
        console.print(escape(line))
