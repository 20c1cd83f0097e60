"""leaderboard: records as ranked tables. Needs neither torch nor NumPy."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from genbench.cli.flags import Arguments
from genbench.core.errors import UserError, did_you_mean

FORMATS = ("table", "markdown", "csv", "json", "latex")


def _parser() -> argparse.ArgumentParser:
    parser = Arguments(
        "python -m genbench leaderboard",
        description="Rank what was evaluated: one table for each data set, protocol and track.",
        epilog="Of a folder its *.json are read and those of every folder called `records` in it. Evaluations of one "
        "config with several seeds are one row. Columns that do not fit the terminal are left out and named.",
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="runs, records, or single files (default runs)")
    parser.add_argument(
        "--by", metavar="METRIC", help="rank by it (default: the first of a track); fid finds fid-X too"
    )
    parser.add_argument("--data", metavar="NAME", help="this data set alone")
    parser.add_argument(
        "--protocol", metavar="NAME", action="append", default=[], help="this protocol alone (or its key)"
    )
    parser.add_argument("--track", metavar="NAME", help="generation, reconstruction, likelihood, translation, ...")
    parser.add_argument("--format", default="table", help=f"{', '.join(FORMATS)} (default table)")
    return parser


def main(verb: str, argv: list[str]) -> int:
    arguments = _parser().parse_intermixed_args(argv)
    if arguments.format not in FORMATS:
        near = did_you_mean(arguments.format, FORMATS)
        raise UserError(f"--format {arguments.format}: there are {', '.join(FORMATS)}.{near}")

    from genbench.leaderboard import formats
    from genbench.leaderboard.board import boards
    from genbench.leaderboard.columns import printable
    from genbench.leaderboard.record import collect

    folders = arguments.folders or [folder for folder in ("runs",) if os.path.isdir(folder)]
    records, skipped = collect(folders)
    for path, reason in skipped:
        print(printable(f"skipped {path}: {reason}."), file=sys.stderr)
    if not records:
        raise UserError(
            f"There is no record in {', '.join(folders) or 'runs'}. Make one with `python -m genbench evaluate --ckpt "
            "last`, or give the folders that hold some."
        )
    protocols = [name for given in arguments.protocol for name in given.split(",") if name]
    found = boards(records, arguments.by, arguments.data, protocols, arguments.track)
    if not found:
        raise UserError("The records hold no scores. Evaluate with a protocol that measures some.")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # arrows on a terminal that has none
    if arguments.format == "table":
        formats.print_tables(found, shutil.get_terminal_size((160, 0)).columns)  # 160: into a file or a pipe
    else:
        print(formats.TEXTS[arguments.format](found))
    return 0
