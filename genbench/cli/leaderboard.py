"""leaderboard: ranked tables of records. Needs neither torch nor NumPy."""

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
        epilog="Reads the *.json in a folder and in every folder `records` below it. Evaluations of one config with "
        "several seeds are one row. Columns that do not fit the terminal are left out and named.",
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="runs, records, or single files (default runs)")
    parser.add_argument("--by", metavar="METRIC", help="rank by it (default: the first of a track); fid finds fid-X")
    parser.add_argument("--data", metavar="NAME", help="only this data set")
    parser.add_argument("--protocol", metavar="NAME", action="append", default=[], help="only this protocol, or key")
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
    from genbench.leaderboard.record import collect

    records = read_records(arguments.folders, collect)
    protocols = [name for given in arguments.protocol for name in given.split(",") if name]
    found = boards(records, arguments.by, arguments.data, protocols, arguments.track)
    if not found:
        raise UserError("The records hold no scores. Evaluate under a protocol that has some.")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack arrows
    if arguments.format == "table":
        formats.print_tables(found, shutil.get_terminal_size((160, 0)).columns)  # 160: for a file or a pipe
    else:
        print(formats.TEXTS[arguments.format](found))
    return 0


def read_records(folders: list[str], read: Callable[[list[str]], tuple[list[Any], list[Any]]]) -> list[Any]:
    """The records that `read` finds in the folders, by default in `runs`; names the files that it skips.

    Raises:
        UserError: there is no record.
    """
    found, skipped = read(folders or [folder for folder in ("runs",) if os.path.isdir(folder)])
    print_skipped(skipped)
    if not found:
        raise UserError(
            f"There is no record in {', '.join(folders) or 'runs'}. Make one with `python -m genbench evaluate --ckpt "
            "last`, or give folders with records."
        )
    return found


def print_skipped(skipped: Iterable[tuple[Any, str]]) -> None:
    """Print each file that was skipped, and the reason, to standard error."""
    from genbench.leaderboard.columns import printable

    for path, reason in skipped:
        print(printable(f"skipped {path}: {reason}."), file=sys.stderr)
