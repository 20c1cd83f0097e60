"""leaderboard: print ranked tables of records. Needs neither torch nor NumPy."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from typing import Any

from genbench.cli.flags import Arguments
from genbench.core.errors import UserError, did_you_mean

FORMATS = ("table", "markdown", "csv", "json", "latex")


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench leaderboard",
        description="Rank evaluated models: one table for each data set, protocol and track.",
        epilog="Reads the *.json files in each folder and in every folder `records` below it. Evaluations of one "
        "config with several seeds are one row. Columns that do not fit the terminal are omitted and listed.",
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="runs, records, or single files (default runs)")
    parser.add_argument("--by", metavar="METRIC", help="rank by this metric (default: first of track); fid finds fid-X")
    parser.add_argument("--data", metavar="NAME", help="only this data set")
    parser.add_argument("--protocol", metavar="NAME", action="append", default=[], help="only this protocol, or key")
    parser.add_argument("--track", metavar="NAME", help="generation, reconstruction, likelihood, translation, ...")
    parser.add_argument("--format", default="table", help=f"{', '.join(FORMATS)} (default table)")
    return parser


def main(verb: str, argv: list[str]) -> int:
    arguments = _parser().parse_intermixed_args(argv)
    if arguments.format not in FORMATS:
        near = did_you_mean(arguments.format, FORMATS)
        raise UserError(f"Unknown --format '{arguments.format}'. Choose from: {', '.join(FORMATS)}.{near}")

    from genbench.leaderboard import formats
    from genbench.leaderboard.board import boards
    from genbench.leaderboard.record import collect

    records = read_records(arguments.folders, collect)
    protocols = [name for given in arguments.protocol for name in given.split(",") if name]
    found = boards(records, arguments.by, arguments.data, protocols, arguments.track)
    if not found:
        raise UserError("The records contain no scores. Evaluate under a protocol that includes metrics.")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # the terminal's encoding may lack arrows
    if arguments.format == "table":
        formats.print_tables(found, shutil.get_terminal_size((160, 0)).columns)  # 160 if the output is a file or a pipe
    else:
        print(formats.TEXTS[arguments.format](found))
    return 0


def read_records(folders: list[str], read: Callable[[list[str]], tuple[list[Any], list[Any]]]) -> list[Any]:
    """Read all records in the folders (default: `runs`) with `read`, and print the skipped files.

    Raises:
        UserError: no record was found.
    """
    found, skipped = read(folders or [folder for folder in ("runs",) if os.path.isdir(folder)])
    print_skipped(skipped)
    if not found:
        raise UserError(
            f"No record found in {', '.join(folders) or 'runs'}. Create one with `python -m genbench evaluate --ckpt "
            "last`, or pass folders with records."
        )
    return found


def print_skipped(skipped: Iterable[tuple[Any, str]]) -> None:
    """Print each file that was skipped, and the reason, to standard error."""
    from genbench.leaderboard.columns import printable

    for path, reason in skipped:
        print(printable(f"skipped {path}: {reason}."), file=sys.stderr)
