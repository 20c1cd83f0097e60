"""suite run and suite status: a table of models × data × seeds, trained, measured, ranked and reported."""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from genbench.cli import configs
from genbench.cli.flags import Arguments, import_modules
from genbench.cli.quiet import quiet
from genbench.core.errors import UserError, did_you_mean, refuse_below
from genbench.suites.definition import Suite, load
from genbench.suites.suite_folder import Folder, State, is_open, side_by_side, wall_minutes


def _parser() -> argparse.ArgumentParser:
    parser = Arguments(
        "python -m genbench suite", allow_abbrev=False,
        description="Train and measure many models, data sets and seeds; what is done already is not done again.",
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="what", required=True, metavar="run|status")
    run = verbs.add_parser(
        "run", allow_abbrev=False, help="do what is not done yet, and end with the board and a report"
    )
    run.add_argument("suite", metavar="SUITE", help=f"one of {', '.join(_names())}, or a YAML file")
    run.add_argument("--only", metavar="PATTERN", nargs="+", help="these runs alone: dcgan-*, *-seed0")
    run.add_argument("--dry-run", action="store_true", help="say what would be done: runs, time and disk")
    run.add_argument("--retry-failed", action="store_true", help="go on with runs that have failed, too")
    run.add_argument(
        "--at-once", type=int, metavar="N", help="runs at the same time (default: see launch in the suite)"
    )
    run.add_argument("--slurm", action="store_true", help="submit to Slurm, as launch: {where: slurm} does")
    run.add_argument("--wait", action="store_true", help="on Slurm: stay until all is done")
    run.add_argument("--import", metavar="MODULE", help="import a module with your own models first")
    status = verbs.add_parser("status", allow_abbrev=False, help="what is done, running, failed, and how long is left")
    status.add_argument("suite", metavar="SUITE", help="a suite, or its folder")
    for verb in (run, status):
        verb.add_argument("--folder", type=Path, help="where the suite keeps everything (default: runs/<its name>)")
    return parser


def main(verb: str, argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.what == "status":
        folder = arguments.folder or _folder_of(arguments.suite)
        return _status(Folder(folder))
    refuse_below(1, {"--at-once": arguments.at_once})
    return _run(arguments, _modules(argv))


def _names() -> list[str]:
    return sorted(path.stem for path in (configs.folder() / "suites").glob("*.yaml"))


def _find(name: str) -> Path:
    for path in (Path(name), configs.folder() / "suites" / f"{name}.yaml"):
        if path.is_file():
            return path
    raise UserError(
        f"There is no suite '{name}'; there are {', '.join(_names())}, or name a YAML file."
        + did_you_mean(name, _names())
    )


def _folder_of(name: str) -> Path:
    path = Path(name)
    return path if (path / "suite.yaml").is_file() else Path("runs") / _find(name).stem


def _modules(argv: list[str]) -> list[str]:
    """Import the modules that `--import` names; their names."""
    import_modules(argv)
    flags = [(argument.partition("="), k) for k, argument in enumerate(argv)]
    return [value or argv[k + 1] for (flag, _, value), k in flags if flag == "--import"]


# ---- run ----------------------------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace, modules: list[str]) -> int:
    path = _find(arguments.suite)
    suite = load(path, configs.find, where="slurm" if arguments.slurm else None, at_once=arguments.at_once)
    kept = Folder(arguments.folder or Path("runs") / suite.name)
    from genbench.runner import work  # here the wait begins: torch and lightning
    from genbench.runner.cluster import run_on_cluster
    from genbench.runner.local import run_here
    from genbench.runner.plan import resolve

    warnings.filterwarnings("ignore")
    quiet()
    resolved, facts, built = resolve(suite, path)
    wanted = _chosen([run for run, *_ in suite.runs()], arguments.only)
    if arguments.dry_run:
        return _dry_run(suite, kept, facts, built, wanted, arguments.retry_failed)
    for data in {id(data): data for _, data in built.values()}.values():
        data.prepare_data()  # now and once: several runs that fetch one data set would be in each other's way
    del built
    try:
        kept.begin(suite, resolved, facts)
        if suite.launch.where == "slurm":
            status = run_on_cluster(
                suite, kept, facts, wanted, modules, retry_failed=arguments.retry_failed, wait=arguments.wait
            )
        else:
            status = run_here(suite, kept, facts, wanted, modules, retry_failed=arguments.retry_failed)
        if status is None:
            print(f"How far they are:  python -m genbench suite status {kept.path}", file=sys.stderr)
            return 0
        if status > 128:
            folder = f" --folder {arguments.folder}" if arguments.folder else ""
            print(f"\nStopped. Go on with:  python -m genbench suite run {arguments.suite}{folder}", file=sys.stderr)
        _conclude(kept)
    except OSError as error:
        if not work.full(error):
            raise
        raise UserError(
            f"The disk of {kept.path} is full. Nothing that was finished is lost: free some of it, and call "
            "`suite run` again."
        ) from error
    return status


def _chosen(runs: list[str], patterns: list[str] | None) -> list[str]:
    if not patterns:
        return runs
    for pattern in patterns:
        if not fnmatch.filter(runs, pattern):
            raise UserError(f"--only {pattern}: no run is called so; there are {', '.join(runs)}.")
    return [run for run in runs if any(fnmatch.fnmatch(run, pattern) for pattern in patterns)]


# ---- what it says -------------------------------------------------------------------------------------------------


def _in_words(state: State) -> str:
    """Why a job waits, in Slurm's word."""
    return f" ({state.reason})" if state.state == "queued" and state.reason else ""


def _status(kept: Folder) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from genbench.suites.show import duration, summary
    from genbench.suites.slurm import with_jobs

    plan = kept.plan()
    states = kept.states()
    try:
        states = with_jobs(kept, states)
    except UserError as error:
        print(f"note: {error}", file=sys.stderr)
    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name, side in {"run": "left", "state": "left", "images": "right", "of": "right", "images/s": "right",
                       "took": "right", "tries": "right"}.items():  # fmt: skip
        table.add_column(name, justify=side, no_wrap=True)
    colors = {"done": "green", "running": "cyan", "failed": "red"}
    for state in states:
        table.add_row(
            escape(state.run),
            f"[{colors.get(state.state, 'default')}]{state.state}[/]" + _in_words(state),
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
    minutes = {name: wall_minutes(each["budget"]["minutes"], each) for name, each in plan["experiments"].items()}
    running = sum(state.state == "running" for state in states)
    console.print(escape(f"\n{plan['suite']}: {summary(states, minutes, running)}"))
    if any(state.state == "failed" for state in states):
        console.print("Try those that have failed again:  python -m genbench suite run … --retry-failed")
    return 0


def _dry_run(
    suite: Suite,
    kept: Folder,
    facts: dict[str, Any],
    built: dict[str, Any],
    wanted: list[str],
    retry_failed: bool,
) -> int:
    """Runs, time and disk to be expected, by a few steps of each experiment where that is needed."""
    import torch

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
    needed = {of[run].name for run in todo if not of[run].budget.minutes}
    speeds = {name: images_per_second(*built[name]) for name in sorted(needed)}
    budgets = dict.fromkeys(str(of[run].budget) for run in wanted)
    print(f"{suite.name}: {len(wanted)} runs of {' or '.join(budgets)}, {done} of them done already\n")
    for run in wanted:
        name = of[run].name
        if run not in todo:
            print(f"  {run}  {states[run].state}")
            continue
        minutes = wall_minutes(of[run].budget.minutes, facts[name])
        seconds = 60 * minutes if minutes else of[run].budget.images / speeds[name]
        left.append(seconds)
        print(f"  {run}  about {duration(seconds)} of training")
    disk = sum(bytes_of(facts[of[run].name]) for run in todo)
    free = shutil.disk_usage(_there(kept.path)).free
    measured = ", by a few steps of each on this machine" if speeds else ""
    total = duration(side_by_side(left, here.at_once))
    print(
        f"\nTraining: about {total} with {here.at_once} at once{measured}; starting, "
        f"validating and measuring come on top.\nDisk: about {disk / 1e6:,.0f} MB in {kept.path} "
        f"({free / 1e9:,.0f} GB free)."
    )
    return 0


def _there(path: Path) -> Path:
    return path if path.exists() else _there(path.absolute().parent)


def _conclude(kept: Folder) -> None:
    """The board, the report, and the table in Weights & Biases, of what there is."""
    from genbench.leaderboard import formats
    from genbench.leaderboard.board import boards
    from genbench.leaderboard.columns import printable
    from genbench.leaderboard.record import collect

    records, skipped = collect([kept.path])
    for path, reason in skipped:
        print(printable(f"skipped {path}: {reason}."), file=sys.stderr)
    if not records:
        return
    plan = kept.plan()
    try:
        found = boards(records, plan["by"])
    except UserError as error:  # no run has that score
        print(f"note: {error}", file=sys.stderr)
        found = boards(records)
    formats.print_tables(found, shutil.get_terminal_size((160, 0)).columns)
    from genbench.cli import report

    report.main("report", [str(kept.path), "--out", str(kept.path / "report.html")])
    if plan["wandb"] is not None:
        from genbench.loggers import log_table

        ranked = {(board.data["name"], board.protocol["key"], board.track) for board in found}
        found += [b for b in boards(records) if (b.data["name"], b.protocol["key"], b.track) not in ranked]
        where = log_table(
            "board", *formats.flat(found), kept.path / "wandb", **{"group": plan["suite"]} | plan["wandb"]
        )
        print(where, file=sys.stderr)
