"""report: all records and their runs in one HTML file. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from genbench.cli.flags import Arguments
from genbench.cli.leaderboard import print_skipped, read_records
from genbench.core.errors import UserError
from genbench.core.files import kind_of, refuse_unwritable, write


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench report",
        description="Write leaderboards, charts, images and configs of all runs to one HTML file that needs no "
        "network.",
        epilog="Records are found as in `leaderboard`. Curves are read from their runs, images from their folders.",
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="runs, records, or single files (default runs)")
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page (default: report.html)"
    )
    return parser


def main(verb: str, argv: list[str]) -> int:
    arguments = _parser().parse_intermixed_args(argv)
    out = arguments.out
    _refuse_out(out)

    from genbench.leaderboard.record import located
    from genbench.report.page import report

    found = read_records(arguments.folders, located)
    page = report(found)
    print_skipped(page.skipped)
    text = page.html.encode("utf-8", "replace")  # JSON may contain unpaired surrogates
    write(out, lambda file: file.write(text))
    print(f"Report: {out} ({len(text) / 1e6:.1f} MB, {len(found)} {'record' if len(found) == 1 else 'records'})")
    return 0


def _refuse_out(out: Path) -> None:
    """Raise UserError early if `--out` cannot be written, or would replace a file that is not a report."""
    if out.exists() and not out.is_file():
        example = out / "report.html" if out.is_dir() else "report.html"
        raise UserError(f"--out {out} is {kind_of(out)}. Use the name of a file, such as {example}.")
    if out.suffix.lower() not in (".html", ".htm"):  # only an older report may be replaced
        raise UserError(f"--out {out} is not an HTML file. Use a name that ends in .html, such as {out.stem}.html.")
    if not out.parent.is_dir():  # `write` would create a folder with a misspelled name
        raise UserError(f"--out {out}: there is no folder {out.parent}. Create it, or use a different one.")
    refuse_unwritable(out.parent, "The report")
