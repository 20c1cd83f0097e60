"""The command line. Torch and other large packages are imported only by the commands that need them."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from genbench import __version__
from genbench.cli import configs

# command -> (module with `main(verb, argv)`, help text)
VERBS = {
    "fit": ("fit", "train a model: --config NAME|FILE [--data NAME] [--max_images 1M] [--name NAME] [--ckpt last]"),
    "validate": ("fit", "compute a checkpoint's scores on the validation split: --ckpt PATH"),
    "test": ("evaluate", "evaluate a checkpoint under its config's protocol: --ckpt PATH"),
    "evaluate": ("evaluate", "evaluate a model or images and write a record: --ckpt PATH | --images PATH | --baseline"),
    "sample": ("sample", "draw images from a checkpoint: --ckpt PATH --n 64 --out grid.png"),
    "translate": ("translate", "apply a model to each image in a folder: --ckpt PATH --input FOLDER --output FOLDER"),
    "reconstruct": ("reconstruct", "reconstruct images, with the error of each: --ckpt PATH [--images PATH]"),
    "vary": ("vary", "draw variations of images: --ckpt PATH [--images PATH]"),
    "latents": ("latents", "interpolate | arithmetic | traverse | manifold | map | cluster | project: --ckpt PATH"),
    "anomaly": ("anomaly", "score images as normal or anomalous: --ckpt PATH --images PATH --by reconstruction"),
    "tag": ("tag", "write the classes of images to a CSV file: --ckpt PATH --images FOLDER"),
    "augment": ("augment", "write | measure: a labeled synthetic data set, and classifiers trained on it: --ckpt PATH"),
    "export": ("export", "write a network as ONNX or torch.export, usable without genbench: --ckpt PATH"),
    "play": ("play", "open a local page for one or several checkpoints: --ckpt PATH [PATH ...]"),
    "suite": ("suite", "train and evaluate many models and seeds: run SUITE [--dry-run] | status SUITE"),
    "leaderboard": ("leaderboard", "rank evaluated models: [FOLDER ...] --by fid --data NAME --format markdown"),
    "report": ("report", "write all results and curves to one page: [FOLDER ...] --out report.html"),
    "fetch": ("fetch", "download data sets and extractor weights in advance: [NAME ...]"),
    "check": ("check", "run the contract tests of a model: --config NAME|FILE"),
}


def usage() -> str:
    """Return the help text of `python -m genbench`: all commands and configs."""
    verbs = "\n".join(f"  {verb:<20}{about}" for verb, (_, about) in VERBS.items())
    whole, parts = configs.listing(), configs.listing(parts=True)
    wide = max(map(len, whole)) + 1
    rows = {name: f"  {name:<{wide}}{about}\n" for name, about in (whole | parts).items()}
    return (
        f"genbench {__version__}: generative image models, trained and compared\n\n"
        f"python -m genbench COMMAND ...    (COMMAND --help shows its flags)\n\n{verbs}\n\n"
        f"Configs for --config NAME:\n{''.join(rows[name] for name in whole)}\n"
        f"Parts, to merge into a config with a second --config:\n{''.join(rows[name] for name in parts)}\n"
        "First run, on embedded data:  python -m genbench fit --config quickstart"
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        print(f"genbench {__version__}")
        return 0
    verb, *rest = argv
    if verb not in VERBS:
        from genbench.core.errors import did_you_mean

        near = did_you_mean(verb, VERBS)
        print(f"error: unknown command '{verb}'. Choose from: {', '.join(VERBS)}.{near}", file=sys.stderr)
        return 2
    return _run(verb, _joined(rest))


def _joined(argv: list[str]) -> list[str]:
    """Rewrite `--flag -1,2` as `--flag=-1,2`, because argparse reads a list that begins with a minus sign as a flag."""
    out: list[str] = []
    for argument in argv:
        if re.match(r"-[\d.]+,", argument) and out and re.match(r"--[^=]+$", out[-1]):
            out[-1] += f"={argument}"
        else:
            out.append(argument)
    return out


def _run(verb: str, argv: list[str]) -> int:
    def work() -> int | None:
        with _interrupts_repeated():
            return importlib.import_module(f"genbench.cli.{VERBS[verb][0]}").main(verb, argv)

    return guarded(work)


REPEAT = 0.05  # seconds until a lost interrupt is repeated, so that the code that lost it has returned


@contextmanager
def _interrupts_repeated() -> Iterator[None]:
    """Repeat a Ctrl-C that was lost.

    Python cannot raise an exception in a destructor or in a callback of a weak reference; it prints the exception and
    continues. Importing a module calls many of them. A KeyboardInterrupt there would not end the command.
    """
    hook, timers = sys.unraisablehook, list[threading.Timer]()
    main_thread = threading.main_thread().ident

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        if args.exc_type is KeyboardInterrupt and main_thread is not None:
            timers.append(threading.Timer(REPEAT, signal.pthread_kill, (main_thread, signal.SIGINT)))
            timers[-1].start()
        else:
            hook(args)

    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for timer in timers:
            timer.cancel()


def guarded(work: Callable[[], int | None], *, quiet: bool = False) -> int:
    """Call `work` and return its exit status. A user error is printed as one sentence, unless `quiet`."""
    try:
        status = work() or 0
        sys.stdout.flush()  # so that a failure is reported here, not at interpreter exit
        return status
    except KeyboardInterrupt:
        if not quiet:
            print("\nstopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the program that reads the output, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):  # while a C extension was imported
            return guarded(_stop, quiet=quiet)
        message = sentence(error)
        if message is None:
            raise
        if not quiet:
            print(f"error: {message}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


def _stop() -> None:
    raise KeyboardInterrupt


# error codes of a path that cannot be used
PATH_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


def sentence(error: BaseException) -> str | None:
    """Return the error message for the user; None for a bug, which is raised with its traceback."""
    from genbench.core.errors import UserError, no_memory
    from genbench.core.files import no_room

    cause: BaseException | None = error
    while cause is not None:  # the config parser wraps the errors of constructors
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, OSError) and no_room(cause):
            return f"{cause.filename or 'A file or the output'} could not be written: {cause.strerror}."
        cause = cause.__cause__ or cause.__context__
    if no_memory(error):
        return "There is not enough memory. Use fewer or smaller images, or a smaller batch size."
    if isinstance(error, OSError) and error.errno in PATH_ERRORS and error.filename is not None:
        named = str(error.filename)
        return f"{named if len(named) <= 100 else named[:97] + '...'}: {error.strerror}. Use a different path."
    if type(error).__name__ == "ArgumentError":
        from genbench.cli.parser_errors import explained

        return explained(str(error))
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, ModuleNotFoundError):  # a logger or a callback needs a package that is not installed
        return str(cause)
    return str(error) if type(error).__name__ in ("MisconfigurationException", "UsageError") else None  # Lightning, W&B
