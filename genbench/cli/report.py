"""report: everything that records hold in one file to open in a browser. Needs no torch."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from genbench.cli.flags import Arguments
from genbench.core.errors import UserError


def _parser() -> argparse.ArgumentParser:
    parser = Arguments(
        "python -m genbench report",
        description="Write boards, charts, pictures and configs of all runs into one HTML file that needs no network.",
        epilog="Records are found as by `leaderboard`; curves come from the runs that they lie in, pictures from their "
        "side.",
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="runs, records, or single files (default runs)")
    parser.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="(default report.html)")
    return parser


def main(verb: str, argv: list[str]) -> int:
    arguments = _parser().parse_intermixed_args(argv)
    _refuse_unwritable(arguments.out)

    from genbench.core.files import write
    from genbench.leaderboard.columns import printable
    from genbench.leaderboard.record import located
    from genbench.report.page import report

    folders = arguments.folders or [folder for folder in ("runs",) if os.path.isdir(folder)]
    found, skipped = located(folders)
    page = report(found) if found else None
    for path, reason in skipped + (page.skipped if page else []):
        print(printable(f"skipped {path}: {reason}."), file=sys.stderr)
    if page is None:
        raise UserError(
            f"There is no record in {', '.join(folders) or 'runs'}. Make one with `python -m genbench evaluate --ckpt "
            "last`, or give the folders that hold some."
        )
    text = page.html.encode("utf-8", "replace")  # JSON may hold halves of characters
    write(arguments.out, lambda file: file.write(text))
    print(
        f"Report: {arguments.out} ({len(text) / 1e6:.1f} MB, {len(found)} {'record' if len(found) == 1 else 'records'})"
    )
    return 0


def _refuse_unwritable(out: Path) -> None:
    """Now, and not after the work; `write` would make a folder that was misspelled."""
    from genbench.core.files import kind_of

    if out.exists() and not out.is_file() and not out.is_dir():
        raise UserError(f"--out {out} is {kind_of(out)}. Give the name of a file, such as report.html.")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the name of a file, such as {out / 'report.html'}.")
    if out.suffix.lower() not in (".html", ".htm"):  # an older page is written over, and nothing else may be
        raise UserError(f"--out {out} is no name of a page. Give one that ends in .html, such as {out.stem}.html.")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}. Make it, or give another one.")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"--out {out}: the folder {out.parent} is not writable. Give another one.")
