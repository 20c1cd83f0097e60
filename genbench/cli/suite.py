"""suite run and suite status: train, evaluate, rank and report models × data sets × seeds."""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from genbench.cli import configs
from genbench.cli.flags import Arguments, add_import_argument, import_modules
from genbench.cli.leaderboard import print_skipped
from genbench.cli.quiet import quiet
from genbench.core.errors import UserError, did_you_mean, refuse_below
from genbench.suites.definition import Suite, load
from genbench.suites.suite_folder import Folder, is_open, side_by_side, wall_minutes


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench suite", allow_abbrev=False,
        description="Train and evaluate many models, data sets and seeds. Finished runs are skipped.",
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="what", required=True, metavar="run|status")
    run = verbs.add_parser("run", allow_abbrev=False, help="train and evaluate all runs, and write a report")
    run.add_argument("suite", metavar="SUITE", help=f"one of {', '.join(_names())}, or a YAML file")
    run.add_argument("--only", metavar="PATTERN", nargs="+", help="only these runs: dcgan-*, *-seed0")
    run.add_argument("--dry-run", action="store_true", help="print the runs, their time and disk space")
    run.add_argument("--retry-failed", action="store_true", help="also resume runs that have failed")
    run.add_argument("--at-once", type=int, metavar="N", help="runs at the same time (default: set by the suite)")
    run.add_argument("--slurm", action="store_true", help="submit to Slurm, like launch: {where: slurm}")
    run.add_argument("--wait", action="store_true", help="on Slurm: wait until all runs are done")
    add_import_argument(run)
    status = verbs.add_parser("status", allow_abbrev=False, help="print the state of each run, and the time left")
    status.add_argument("suite", metavar="SUITE", help="a suite, or its folder")
    for verb in (run, status):
        verb.add_argument("--folder", type=Path, help="folder of the suite (default: runs/<its name>)")
    return parser


def main(verb: str, argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.what == "status":
        named = Path(arguments.suite)
        default = named if (named / "suite.yaml").is_file() else Path("runs") / _find(arguments.suite).stem
        return _status(Folder(arguments.folder or default))
    refuse_below(1, {"--at-once": arguments.at_once})
    import_modules(argv)
    return _run(arguments)


def _names() -> list[str]:
    return sorted(path.stem for path in (configs.folder() / "suites").glob("*.yaml"))


def _find(name: str) -> Path:
    for path in (Path(name), configs.folder() / "suites" / f"{name}.yaml"):
        if path.is_file():
            return path
    names = _names()
    near = did_you_mean(name, names)
    raise UserError(f"Unknown suite '{name}'. Choose from: {', '.join(names)}, or pass a YAML file.{near}")


# ---- run ----------------------------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    path = _find(arguments.suite)
    suite = load(path, configs.find, where="slurm" if arguments.slurm else None, at_once=arguments.at_once)
    kept = Folder(arguments.folder or Path("runs") / suite.name)
    from genbench.runner import work  # slow: imports torch and lightning
    from genbench.runner.cluster import run_on_cluster
    from genbench.runner.local import run_here
    from genbench.runner.plan import resolve

    warnings.filterwarnings("ignore")
    quiet()
    resolved, facts, built = resolve(suite, path)
    wanted = _matching([run for run, *_ in suite.runs()], arguments.only)
    if arguments.dry_run:
        return _dry_run(suite, kept, facts, built, wanted, arguments.retry_failed)
    for data in {id(data): data for _, data in built.values()}.values():
        data.prepare_data()  # once here, because several runs would download it at the same time
    del built
    given = (kept, suite.launch, wanted, arguments.modules)
    try:
        kept.begin(suite, resolved, facts)
        if suite.launch.where == "slurm":
            status = run_on_cluster(*given, retry_failed=arguments.retry_failed, wait=arguments.wait)
        else:
            status = run_here(*given, retry_failed=arguments.retry_failed)
        if status is None:
            print(f"To see the state of the runs:  python -m genbench suite status {kept.path}", file=sys.stderr)
            return 0
        if status > 128:
            folder = f" --folder {arguments.folder}" if arguments.folder else ""
            print(f"\nStopped. Resume with:  python -m genbench suite run {arguments.suite}{folder}", file=sys.stderr)
        _conclude(kept)
    except OSError as error:
        if not work.full(error):
            raise
        raise UserError(
            f"The disk of {kept.path} is full. Finished work is kept: free some space, and call `suite run` again."
        ) from error
    return status


def _matching(runs: list[str], patterns: list[str] | None) -> list[str]:
    """Return the runs that match one of the patterns, by default all."""
    for pattern in patterns or []:
        if not fnmatch.filter(runs, pattern):
            raise UserError(f"--only {pattern} matches no run. Choose from: {', '.join(runs)}.")
    return [run for run in runs if any(fnmatch.fnmatch(run, pattern) for pattern in patterns or ["*"])]


# ---- output -------------------------------------------------------------------------------------------------------


def _status(kept: Folder) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from genbench.suites.show import duration, summary
    from genbench.suites.slurm import with_jobs

    states = kept.states()
    try:
        states = with_jobs(kept, states)
    except UserError as error:
        print(f"note: {error}", file=sys.stderr)
    console = Console(highlight=False, soft_wrap=True)
    table = Table("run", "state", "images", "of", "images/s", "took", "tries", box=None, pad_edge=False)
    for k, column in enumerate(table.columns):
        column.no_wrap, column.justify = True, "left" if k < 2 else "right"
    colors = {"done": "green", "running": "cyan", "failed": "red"}
    for state in states:
        why = f" ({state.reason})" if state.state == "queued" and state.reason else ""
        table.add_row(
            escape(state.run),
            f"[{colors.get(state.state, 'default')}]{state.state}[/]{why}",
            f"{state.images:,}" if state.images else "",
            f"{state.budget:,}" if state.budget else "",
            f"{state.speed:,.0f}" if state.speed else "",
            duration(state.seconds) if state.seconds else "",
            str(state.attempts or ""),
        )
    console.print(table)
    for state in states:
        if state.reason and state.state in ("failed", "stopped") and not state.reason.startswith("SIG"):
            console.print(escape(f"\n{state.run} {state.state}: {state.reason}\n  log: {kept.log(state.run)}"))
    running = sum(state.state == "running" for state in states)
    console.print(escape(f"\n{kept.plan()['suite']}: {summary(states, kept.minutes(), running)}"))
    if any(state.state == "failed" for state in states):
        console.print("To retry failed runs:  python -m genbench suite run … --retry-failed")
    return 0


def _dry_run(
    suite: Suite, kept: Folder, facts: dict[str, Any], built: dict[str, Any], wanted: list[str], retry_failed: bool
) -> int:
    """Print the runs with the expected time and disk space. Budgets in images need a measured speed."""
    import torch

    from genbench.cli.disk import existing
    from genbench.runner.plan import bytes_of, images_per_second
    from genbench.suites.launch import Here
    from genbench.suites.show import duration

    states = {}
    if (kept.path / "suite.yaml").is_file():
        states = {state.run: state for state in kept.states()}
    here = Here(kept.path, suite.launch, torch.cuda.device_count())
    of = {run: experiment for run, experiment, _ in suite.runs()}
    todo = [run for run in wanted if run not in states or is_open(states[run], retry_failed)]
    done = sum(run in states and states[run].state == "done" for run in wanted)
    left: list[float] = []
    timed = {of[run].name for run in todo if of[run].budget.images}
    speeds = {name: images_per_second(*built[name]) for name in sorted(timed)}
    budgets = dict.fromkeys(str(of[run].budget) for run in wanted)
    print(f"{suite.name}: {len(wanted)} runs of {' or '.join(budgets)}, {done} of them done already\n")
    for run in wanted:
        name, budget = of[run].name, of[run].budget
        if run not in todo:
            print(f"  {run}  {states[run].state}")
            continue
        minutes = wall_minutes(budget.minutes, facts[name])
        left.append(60 * minutes if minutes else budget.images / speeds[name])
        print(f"  {run}  about {duration(left[-1])} of training")
    disk = sum(bytes_of(facts[of[run].name]) for run in todo)
    free = shutil.disk_usage(existing(kept.path)).free
    source = ", measured with a few steps of each on this machine" if speeds else ""
    total = duration(side_by_side(left, here.at_once))
    print(
        f"\nTraining: about {total} with {here.at_once} at once{source}, plus time to start, validate and evaluate.\n"
        f"Disk: about {disk / 1e6:,.0f} MB in {kept.path} ({free / 1e9:,.0f} GB free)."
    )
    return 0


def _conclude(kept: Folder) -> None:
    """For all records, print the leaderboard, write the report, and log the table to Weights & Biases."""
    from genbench.cli import report
    from genbench.leaderboard import formats
    from genbench.leaderboard.board import boards
    from genbench.leaderboard.record import collect

    records, skipped = collect([kept.path])
    print_skipped(skipped)
    if not records:
        return
    plan = kept.plan()
    try:
        found = boards(records, plan["by"])
    except UserError as error:  # no run has the score of `by`
        print(f"note: {error}", file=sys.stderr)
        found = boards(records)
    formats.print_tables(found, shutil.get_terminal_size((160, 0)).columns)
    report.main("report", [str(kept.path), "--out", str(kept.path / "report.html")])
    if plan["wandb"] is not None:
        from genbench.loggers import log_table

        ranked = {(board.data["name"], board.protocol["key"], board.track) for board in found}
        found += [b for b in boards(records) if (b.data["name"], b.protocol["key"], b.track) not in ranked]
        settings = {"group": plan["suite"]} | plan["wandb"]
        print(log_table("board", *formats.flat(found), kept.path / "wandb", **settings), file=sys.stderr)
