"""export: write a network of a trained model as ONNX or as a `torch.export` program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genbench.cli.flags import Arguments, add_model_arguments, import_modules, own_options
from genbench.cli.inputs import model_of, refuse_existing
from genbench.core.errors import UserError


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench export",
        description="Write a network of a trained model as ONNX or torch.export.",
    )
    add_model_arguments(parser)
    parts = "generator, translator, segmenter, autoencoder, encoder, decoder or classifier"
    parser.add_argument("--part", help=f"{parts} (default: the first of these that the model has)")
    parser.add_argument("--to", choices=("A", "B"), help="target domain of a translator (default B)")
    parser.add_argument("--format", choices=("onnx", "torch"), help="default: from the suffix of --out, otherwise onnx")
    parser.add_argument("--out", type=Path, help="output: .onnx, or .pt2 for torch.export (default: PART.onnx)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing results")
    parser.set_defaults(device="cpu")
    next(action for action in parser._actions if action.dest == "device").help = "cpu; the file runs on any device"
    parser.epilog = (
        "A model's own options, such as the seed of a translator's dropout, are flags too. They are fixed in the file."
    )
    return parser


def main(verb: str, argv: list[str]) -> int:
    arguments, own = _parser().parse_known_args(import_modules(argv))
    if arguments.device != "cpu":
        raise UserError(f"--device {arguments.device}: networks are exported on the CPU, and run on any device.")

    from rich.console import Console

    from genbench.analysis import export

    format = _format(arguments, export.SUFFIXES)
    export.refuse_missing(format)
    if arguments.out is not None:
        _refuse_files(arguments.out, arguments.overwrite)
    model, _ = model_of(arguments)
    name = export.chosen(model, arguments.part)
    out = arguments.out or Path(f"{name}{export.SUFFIXES[format]}")
    _refuse_files(out, arguments.overwrite)
    options = own_options(model, own, export.PARTS[name][1], flags=_parser().flags())
    part = export.part_of(model, name, to=arguments.to, own=options)
    with Console(file=sys.stderr).status(f"Exporting the {part} and comparing it with the model"):
        done = export.export(part, out, format)
    _report(part, done, format)
    return 0


def _format(arguments: argparse.Namespace, suffixes: Mapping[Any, str]) -> Any:
    """The format of `--format`, or of the suffix of `--out`."""
    if arguments.out is None:
        return arguments.format or "onnx"
    found = {suffix: name for name, suffix in suffixes.items()}.get(arguments.out.suffix)
    if arguments.format and found != arguments.format:
        raise UserError(
            f"--out {arguments.out}: a file of `--format {arguments.format}` needs the suffix "
            f"{suffixes[arguments.format]}."
        )
    if found is None:
        raise UserError(f"--out {arguments.out}: '{arguments.out.suffix}' is neither .onnx nor .pt2 (torch.export).")
    return found


def _refuse_files(out: Path, overwrite: bool) -> None:
    """Raise UserError if `--out` or the script beside it exists, or cannot be written."""
    for path in (out, out.with_name(f"{out.name}.py")):
        refuse_existing(path, overwrite, "The network")


def _report(part: Any, done: Any, format: str) -> None:
    from genbench.analysis import export

    size = f"{done.path.stat().st_size / 1e6:.1f} MB"
    print(f"{part} at {part.facts['images_seen']:,} images seen -> {done.path} ({size})")
    for value in part.inputs:
        print(f"  input   {value.name}: {value}")
    print(f"  output  {part.output.name}: {part.output}")
    if fixed := part.facts.get("options"):
        print(f"  fixed   {', '.join(f'{name} {value}' for name, value in fixed.items())}")
    code = part.output.dtype == "int64"
    found = f"{done.difference:.1%} of the indices" if code else f"{done.difference:.1e}"
    sizes = " and ".join(map(str, export.CHECKED))
    runner = "onnxruntime" if format == "onnx" else "PyTorch"
    print(f"  largest difference from the model, in {runner} with batches of {sizes}: {found}")
    print(f"\n{done.script} runs it without genbench:\n\n{done.script.read_text()}", end="")
