"""suite run and suite status: a table of models × data × seeds, trained, measured, ranked and reported."""

from __future__ import annotations

import argparse
import errno
import fnmatch
import os
import shutil
import signal
import socket
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from genbench.cli import configs
from genbench.cli.arguments import Arguments
from genbench.cli.runs import import_modules, quiet
from genbench.core.errors import UserError, did_you_mean, refuse_below
from genbench.suites import claims
from genbench.suites.folder import Folder, State, side_by_side
from genbench.suites.suite import Suite, load, told

POLL = 0.5  # seconds
SLURM_POLL = 5.0  # its controller has others to answer
UNDER_WAY = ("queued", "running")


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
    warnings.filterwarnings("ignore")
    quiet()
    resolved, facts, built = _resolved(suite, path)
    wanted = _chosen([run for run, *_ in suite.runs()], arguments.only)
    if arguments.dry_run:
        return _dry_run(suite, kept, facts, built, wanted, arguments.retry_failed)
    for data in {id(data): data for _, data in built.values()}.values():
        data.prepare_data()  # now and once: several runs that fetch one data set would be in each other's way
    del built
    try:
        kept.begin(suite, resolved, facts)
        if suite.launch.where == "slurm":
            status = _on_cluster(suite, kept, facts, wanted, arguments, modules)
        else:
            status = _run_here(suite, kept, facts, wanted, arguments, modules)
        if status is None:
            return 0
        _conclude(kept)
    except OSError as error:
        from genbench.cli.work import full

        if not full(error):
            raise
        raise UserError(
            f"The disk of {kept.path} is full. Nothing that was finished is lost: free some of it, and call "
            "`suite run` again."
        ) from error
    return status


def _resolved(suite: Suite, path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Of each experiment: its config with everything that was set, what is kept of it, and its model and data.

    Raises:
        UserError: with all that `fit` would refuse in any of them.
    """
    from genbench.callbacks import Quality
    from genbench.cli import sentence
    from genbench.cli.fit import with_configs
    from genbench.cli.trainer import Parser, refuse_what_players_cannot
    from genbench.data.module import DataModule
    from genbench.evaluation import protocol as protocols
    from genbench.metrics.scales import SCALES

    faults: dict[str, list[str]] = {}  # what is wrong -> in which experiments
    resolved, facts, built = {}, {}, {}
    parser: Any = None
    for experiment in suite.experiments:
        try:
            command = with_configs("fit", [*experiment.flags, "--seed_everything=0"])
            if parser is None:
                parser = Parser.run("fit", command)
            config = parser.parse(command)
            dump = {
                key: value
                for key, value in parser.dump(config).items()
                if key not in ("seed_everything", "name", "runs", "max_images")
            }
            refuse_what_players_cannot(config.fit.trainer)
            facts[experiment.name] = each = _machines(dump["trainer"], suite)
            built[experiment.name] = model, data = parser.build(config)
            protocol = protocols.load(dump["protocol"])
            if isinstance(data, DataModule):
                data.check_share(each["devices"] * each["nodes"])
                _judge(protocol, data)
            quality, monitor = Quality(**dump["quality"]), dump["checkpoint"]["monitor"]
            if monitor:  # whether validation gives it is known once the data is at hand
                quality.deciding(model, [monitor], monitor, dump["checkpoint"]["mode"])
            each["parameters"] = sum(p.numel() for p in model.parameters())
            kept, images = dump["checkpoint"]["keep_every"], experiment.budget.images
            each["checkpoints"] = 2 + (images // kept if kept and images else 0)
            resolved[experiment.name] = dump
        except Exception as error:
            said = sentence(error)
            if said is None:
                raise
            faults.setdefault(said, []).append(experiment.name)
    wrong = [f"{', '.join(names)}: {said}" for said, names in faults.items()]
    if suite.by is not None and suite.by.partition("-")[0] not in SCALES:
        wrong.append(f"by is '{suite.by}': there is no such metric; there are {', '.join(SCALES)}.")
    if wrong:
        raise UserError(told(path, wrong))
    return resolved, facts, built


def _machines(trainer: dict[str, Any], suite: Suite) -> dict[str, int]:
    """Devices of a run on each node, and nodes: those of its config, else of the suite; the config then has them."""
    asked = trainer["devices"]
    if asked in ("auto", None):
        asked = suite.launch.devices
    devices = len(asked) if isinstance(asked, list) else int(asked) if str(asked).isdecimal() else 0
    if devices < 1:
        raise UserError(f"trainer.devices is {asked}; in a suite it is a number of devices.")
    nodes = trainer["num_nodes"] if trainer["num_nodes"] > 1 else suite.launch.nodes
    if nodes > 1 and suite.launch.where == "local":
        raise UserError(
            f"trainer.num_nodes is {nodes}, and on this machine a run has one: use `launch: {{where: slurm}}`."
        )
    trainer |= {"devices": devices, "num_nodes": nodes}
    return {"devices": devices, "nodes": nodes}


def _judge(protocol: Any, data: Any) -> None:
    """Raise UserError where the network that judges samples is not at hand: now, and not after hours of training."""
    from genbench.evaluation import extractors

    name = data.extractor if protocol.extractor == "default" else protocol.extractor
    extractors.build(name, root=data.root)


def _chosen(runs: list[str], patterns: list[str] | None) -> list[str]:
    if not patterns:
        return runs
    for pattern in patterns:
        if not fnmatch.filter(runs, pattern):
            raise UserError(f"--only {pattern}: no run is called so; there are {', '.join(runs)}.")
    return [run for run in runs if any(fnmatch.fnmatch(run, pattern) for pattern in patterns)]


def _run_here(
    suite: Suite,
    kept: Folder,
    facts: dict[str, Any],
    wanted: list[str],
    arguments: argparse.Namespace,
    modules: list[str],
) -> int:
    """Do the runs on this machine; the exit status."""
    import torch

    from genbench.cli import work
    from genbench.suites.launch import Here
    from genbench.suites.show import Lines

    here = Here(kept.path, suite.launch, torch.cuda.device_count())
    devices = {run: facts[name]["devices"] for run, (name, _) in kept.runs().items() if name in facts}
    show = Lines(kept, here, _all_minutes(suite, facts))
    begun: dict[str, int] = {}  # by us, after so many attempts: what has ended is not begun again, however it ended
    told: list[int] = []  # signals
    full = False  # the disk

    def stop(signum: int, frame: Any) -> None:
        told.append(signum)
        os.write(2, b"\nstopping: what runs saves and ends; once more to end at once.\n" if len(told) == 1 else b"")
        here.stop()
        for run in here.running() if len(told) > 2 else ():  # those that do not listen
            attempt = claims.latest(kept.claims, run)
            if attempt is not None and attempt.alive and attempt.holder["host"] == socket.gethostname():
                os.killpg(attempt.holder["pid"], signal.SIGKILL)

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        while True:
            for run, took, why in here.ended():
                if not took and why is None and kept.states([run])[0].state == "running":
                    del begun[run]  # somebody else was faster, and may yet leave it to us
                    continue
                try:
                    _bury(kept, run, begun[run], why, bool(told))
                except OSError as error:
                    full |= work.full(error)
                show.ended(run)
                full |= work.FULL in (kept.states([run])[0].reason or "") or "No space left" in (why or "")
            states = {state.run: state for state in kept.states(wanted)}
            show.refresh(states.values())
            todo = [run for run in wanted if _is_open(states[run], arguments.retry_failed) and run not in begun]
            elsewhere = [run for run in wanted if states[run].state == "running" and run not in here.running()]
            if full and not here.running():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if told and not here.running():
                folder = f" --folder {arguments.folder}" if arguments.folder else ""
                print(
                    f"\nStopped. Go on with:  python -m genbench suite run {arguments.suite}{folder}", file=sys.stderr
                )
                return 128 + told[0]
            if not (todo or elsewhere or here.running()):
                break
            while todo and here.room(devices[todo[0]]) and not (told or full):
                run = todo.pop(0)
                begun[run] = states[run].attempts
                show.begins(states[run])
                here.start(run, devices[run], work.work, str(kept.path), run, arguments.retry_failed, modules)
                if told:
                    here.stop()  # it was not there yet
            time.sleep(POLL)
    finally:
        show.close()
        here.close()
        for signum, handler in before.items():
            signal.signal(signum, handler)
    return 1 if any(state.state != "done" for state in kept.states(wanted)) else 0


def _is_open(state: State, retry_failed: bool) -> bool:
    return state.state in ("waiting", "stopped") or (retry_failed and state.state == "failed")


def _bury(kept: Folder, run: str, attempts: int, why: str | None, stopping: bool) -> None:
    """Say of a run whose process died how it ended: nobody else does.

    attempts  at this run, before the process was started
    """
    from genbench.suites.launch import KILLED

    attempt = claims.latest(kept.claims, run)
    if why is None or (attempt is not None and (attempt.alive or attempt.number > attempts + 1)):
        return  # it has said so itself; or another process works on it
    if attempt is None or attempt.number == attempts:  # it died before it took the run
        if not stopping and (claim := claims.take(kept.claims, run, again=True)) is not None:
            claim.end("failed", why)
    elif attempt.outcome is None:
        # by whom it was killed is not known: it goes on the next time
        claims.close(kept.claims, run, attempt, "stopped" if stopping or why == KILLED else "failed", why)


def _minutes(minutes: float | None, facts: dict[str, Any]) -> float | None:
    """Wall-clock minutes of one run's training from those of a device, where the budget is a time."""
    return minutes and minutes / (facts["devices"] * facts["nodes"])


def _all_minutes(suite: Suite, facts: dict[str, Any]) -> dict[str, float | None]:
    return {each.name: _minutes(each.budget.minutes, facts[each.name]) for each in suite.experiments}


def _on_cluster(
    suite: Suite,
    kept: Folder,
    facts: dict[str, Any],
    wanted: list[str],
    arguments: argparse.Namespace,
    modules: list[str],
) -> int | None:
    """Submit the runs to Slurm; None where we do not wait for them."""
    from genbench.cli.work import work
    from genbench.suites.show import Lines
    from genbench.suites.slurm import Cluster, submit, with_jobs

    cluster = Cluster(kept.path.absolute(), suite.launch)
    show = Lines(kept, cluster, _all_minutes(suite, facts))
    try:
        states = with_jobs(kept, kept.states(wanted))
        todo = [state.run for state in states if _is_open(state, arguments.retry_failed)]
        if todo:
            numbers = sorted(submit(cluster, kept, facts, todo, work, arguments.retry_failed, modules))
            show.say(f"{len(todo)} run{'s' * (len(todo) > 1)} submitted to Slurm as {', '.join(numbers)}")
        if arguments.wait or not (todo or any(state.state in UNDER_WAY for state in states)):
            return _wait(kept, wanted, show)
    except KeyboardInterrupt:
        show.say("Not waiting any longer; the jobs go on.")
    finally:
        show.close()
    print(f"How far they are:  python -m genbench suite status {kept.path}", file=sys.stderr)
    return None


def _wait(kept: Folder, wanted: list[str], show: Any) -> int:
    """Stay until no job waits or runs; the exit status."""
    from genbench.suites.slurm import with_jobs

    before: dict[str, State] = {}
    silent = False
    while True:
        try:
            states = {state.run: state for state in with_jobs(kept, kept.states(wanted))}
        except UserError as error:  # its controller is restarted, or has too much to do
            if not silent:
                show.say(str(error))
            silent = True
            time.sleep(SLURM_POLL)
            continue
        silent = False
        for run, state in states.items():
            if run in before and state.state == "running" != before[run].state:
                show.begins(before[run])
            elif state.state != (before[run].state if run in before else "done"):
                show.ended(run)
        if not any(state.state in UNDER_WAY for state in states.values()):
            return 1 if any(state.state != "done" for state in states.values()) else 0
        before = states
        show.refresh(states.values())
        time.sleep(SLURM_POLL)


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
    minutes = {name: _minutes(each["budget"]["minutes"], each) for name, each in plan["experiments"].items()}
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

    from genbench.suites.launch import Here
    from genbench.suites.show import duration

    states = {}
    if (kept.path / "suite.yaml").is_file():
        states = {state.run: state for state in kept.states()}
    here = Here(kept.path, suite.launch, torch.cuda.device_count())
    of = {run: experiment for run, experiment, _ in suite.runs()}
    todo = [run for run in wanted if run not in states or _is_open(states[run], retry_failed)]
    done = sum(run in states and states[run].state == "done" for run in wanted)
    left: list[float] = []
    needed = {of[run].name for run in todo if not of[run].budget.minutes}
    speeds = {name: _a_few_steps(*built[name]) for name in sorted(needed)}
    budgets = dict.fromkeys(str(of[run].budget) for run in wanted)
    print(f"{suite.name}: {len(wanted)} runs of {' or '.join(budgets)}, {done} of them done already\n")
    for run in wanted:
        name = of[run].name
        if run not in todo:
            print(f"  {run}  {states[run].state}")
            continue
        minutes = _minutes(of[run].budget.minutes, facts[name])
        seconds = 60 * minutes if minutes else of[run].budget.images / speeds[name]
        left.append(seconds)
        print(f"  {run}  about {duration(seconds)} of training")
    disk = sum(_bytes(facts[of[run].name]) for run in todo)
    free = shutil.disk_usage(_there(kept.path)).free
    measured = ", by a few steps of each on this machine" if speeds else ""
    total = duration(side_by_side(left, here.at_once))
    print(
        f"\nTraining: about {total} with {here.at_once} at once{measured}; starting, "
        f"validating and measuring come on top.\nDisk: about {disk / 1e6:,.0f} MB in {kept.path} "
        f"({free / 1e9:,.0f} GB free)."
    )
    return 0


def _a_few_steps(model: Any, data: Any) -> float:
    """Images per second of a model on this machine's default device, over two seconds."""
    import tempfile

    from lightning import Trainer

    from genbench.callbacks.stopwatch import Stopwatch
    from genbench.core.errors import Interrupted

    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch(os.path.join(folder, "speed.json"), seconds=2, warmup=1)
        trainer = Trainer(
            devices=1, logger=False, callbacks=[watch], max_epochs=-1, default_root_dir=folder, limit_val_batches=0,
            enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, inference_mode=False,
        )  # fmt: skip
        with suppress(Interrupted):
            trainer.fit(model, datamodule=data)
        return watch.found["images_per_second"]


def _bytes(facts: dict[str, Any]) -> float:
    """Of a run: checkpoints of weights, averages and Adam's two moments, and a few pictures."""
    return facts["checkpoints"] * 4 * 4 * facts["parameters"] + 3e6


def _there(path: Path) -> Path:
    return path if path.exists() else _there(path.absolute().parent)


def _conclude(kept: Folder) -> None:
    """The board, the report, and the table in Weights & Biases, of what there is."""
    from genbench.leaderboard import formats
    from genbench.leaderboard.board import boards
    from genbench.leaderboard.record import collect

    records, skipped = collect([kept.path])
    for path, reason in skipped:
        print(formats.printable(f"skipped {path}: {reason}."), file=sys.stderr)
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
