"""The first thing that a newcomer types."""

import re
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import genbench
from genbench.cli import guarded, parser_errors, settable, usage


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["fit", "--help"]])
def test_the_first_answer_imports_nothing_heavy(arguments):
    script = (
        "import sys; from genbench.cli import main; main(sys.argv[1:]);"
        "heavy = {'torch', 'lightning', 'torchvision', 'matplotlib', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = "python -m genbench fit --config" if "fit" in arguments else genbench.__version__
    assert said in done.stdout


def test_it_lists_all_commands_and_configs(cli):
    status, out, _ = cli()
    assert status == 0
    for word in ("fit", "validate", "test", "sample", "check", "quickstart", "dcgan", "vae", "logger/wandb"):
        assert word in out


def test_an_unknown_command_lists_all_commands(cli):
    status, _, err = cli("trian")
    assert status == 2 and "unknown command 'trian'. Choose from: fit, validate" in err
    assert "Did you mean 'evaluate'?" in cli("evalute")[2]


@pytest.mark.parametrize(
    "verb", [["evaluate", "--data", "Digits", "--images"], ["sample", "--ckpt"], ["fit", "--ckpt"]]
)
def test_an_impossible_path_is_reported_in_one_sentence(cli, verb):
    status, _, err = cli(*verb, "9" * 5000)
    assert status == 2 and "File name too long" in err and len(err) < 400 and "Traceback" not in err


def test_python_m_genbench_runs_the_command_line():
    done = subprocess.run([sys.executable, "-m", "genbench", "--version"], capture_output=True, text=True)
    assert done.stdout == f"genbench {genbench.__version__}\n"


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_help_fits_a_screen_and_names_only_existing_settings(cli, config, verb):
    status, out, _ = cli(verb, "--help")
    assert status == 0 and len(out.splitlines()) <= 60 and max(map(len, out.splitlines())) <= 80
    named = set(re.findall(r"--([a-z_.]+\.?[a-z_]*)", out)) - {"import", "help", "print_config", "config"}
    assert len(named) >= 6
    missing = {name for name in named if name.partition(".")[0] not in settable.ROOT}
    assert not missing
    groups = {name for name in named if name.partition(".")[0] in settable.GROUPS}
    assert groups <= parser_errors.setting_names()


def test_everything_is_listed_on_request(cli, config, capfd):
    vae = ["--config", "vae"]
    for more, said in (
        (["--help", "all"], "--trainer.sync_batchnorm"),
        (["--model.help", "DCGAN"], "--model.latent_dim"),
        (["--data.help", "MNIST"], "--data.batch_size"),
        ([*vae, "--model.help"], "kl_warmup"),
        ([*vae, "--data.size", "64", "--print_config"], "size: 64"),
        ([*vae, "--title", "all", "--print_config"], "title: all"),
    ):
        with pytest.raises(SystemExit) as done:
            cli("fit", *more)
        assert done.value.code == 0 and said in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["leaderboard", "--formt", "csv"], "unrecognized arguments: --formt. Did you mean '--format'?"),
        (["report", "--ouut", "x"], "Did you mean '--out'?"),
        (["sample", "--n", "x"], "argument --n: invalid int value: 'x'."),
        (["sample"], "the following arguments are required: --ckpt."),
        (["suite", "rnu", "mnist"], "Did you mean 'run'?"),
        (["suite", "run", "mnist", "--dry-rnu"], "Did you mean '--dry-run'?"),
        (["fetch", "--rot", "x"], "Did you mean '--root'?"),
        (["check", "--confg", "vae"], "--config"),
    ],
)
def test_a_wrong_flag_of_any_command_is_reported_in_one_sentence(cli, capfd, arguments, said):
    with pytest.raises(SystemExit) as done:
        cli(*arguments)
    err = capfd.readouterr().err
    assert done.value.code == 2 and said in err and err.count("\n") == 1 and "usage" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["suite", "run", "mnits"], "Did you mean 'mnist'?"),
        (["check", "--config", "vaee"], "Did you mean 'vae'?"),
        (["fit", "--import", ""], "--import '' is not the name of a module"),
        (["sample", "--import", ".x"], "--import '.x' is not the name of a module"),
        (
            ["fit", "--config", "quickstart", "--model.dict_kwargs", "{a: 1}"],
            "unexpected keyword argument 'a'",
        ),
        (["fit", "--config", "quickstart", "--ema.rampup", "9" * 400], "ema.rampup has 400 characters"),
        (["fit", "--config", "quickstart", "--trainer.devices", "9" * 5000], "This machine has"),
        (["fit", "--config", "quickstart", "--trainer.devices", "²"], "This machine has"),
        (["fit", "--config", "quickstart", "--model.optimizer.betas.²", "1"], "optimizer"),
        (["fetch", "MNITS"], "Did you mean 'MNIST'?"),
        (["leaderboard", "--format", "makdown"], "Did you mean 'markdown'?"),
        (["evaluate", "--images", "x", "--protocl", "quick"], "Did you mean '--protocol'?"),
        (["evaluate", "--baseline", "--data", "MINST"], "Did you mean 'MNIST'?"),
        (["evaluate", "--baseline", "--data", "Digits", "--protocol", "quik"], "Did you mean 'quick'?"),
        (["evaluate", "--baseline", "--config", "quikstart"], "Did you mean 'quickstart'?"),
        (["evaluate", "--baseline", "--data", "Digits", "--extractor", "digitnet"], "Did you mean 'digitsnet'?"),
        (["fit", "--config", "quickstart", "--model.optimizer.llr", "1"], "Did you mean 'lr'?"),
        (
            ["fit", "--config", "dcgan", "--data", "Digits", "--model.adversarial.objectve", "hinge"],
            "Did you mean 'objective'?",
        ),
        (
            ["fit", "--config", "dcgan", "--data", "Digits", "--model.adversarial.objective", "hing"],
            "Did you mean 'hinge'?",
        ),
        (["report", "rusn"], "Did you mean 'runs'?"),
        (["sample", "--ckpt", "runs/frist", "--out", "x.png"], "Did you mean 'first'?"),
        (["validate", "--ckptt", "last"], "validate has no setting --ckptt. Did you mean 'ckpt'?"),
    ],
)
def test_a_misspelled_name_proposes_the_nearest(cli, arguments, said):
    Path("runs/first").mkdir(parents=True)
    status, _, err = cli(*arguments)
    assert status == 2 and said in err and "Traceback" not in err


@pytest.mark.parametrize("spelled", [["--data.range", "-1,3"], ["--data.range=-1,3"]])
def test_a_list_that_begins_with_a_minus_sign_is_read_as_a_value(monkeypatch, spelled):
    import genbench.cli

    taken = []
    monkeypatch.setattr(genbench.cli, "_run", lambda verb, argv: taken.append(argv) or 0)
    genbench.cli.main(["fit", "--seed_everything", "-1", *spelled, "--name", "x"])
    assert taken == [["--seed_everything", "-1", "--data.range=-1,3", "--name", "x"]]


def test_each_config_is_listed_with_a_whole_sentence_that_stands_apart_from_its_name():
    blocks = [usage().partition(f"{head}\n")[2].partition("\n\n")[0].splitlines() for head in (
        "Configs for --config NAME:", "Parts, to merge into a config with a second --config:",
    )]  # fmt: skip
    whole, parts = ({row.split()[0] for row in rows} for rows in blocks)
    assert parts == {
        *(f"data/{name}" for name in ("cifar10", "digits", "fashion_mnist", "folder", "mnist")),
        *(f"trainer/{name}" for name in ("bf16", "compile", "cpu", "ddp", "fp16")),
        *("logger/tensorboard", "logger/wandb"),
    }
    assert {"dcgan", "papers/maps"} < whole and not whole & parts
    column = blocks[0][0].index("AC-GAN")
    for row in blocks[0] + blocks[1]:
        assert row[column - 1] == " " != row[column]
        assert row.count("`") % 2 == 0, "cut within a quotation"


@pytest.mark.parametrize("number", [10**30, -(2**62)])
@pytest.mark.parametrize(
    "arguments", ["sample --seed", "tag --batch-size", "latents project --seed", "augment write --seed", "vary --n"]
)
def test_a_number_that_does_not_fit_into_62_bits_is_refused_in_one_sentence(cli, arguments, number):
    *verb, flag = arguments.split()
    status, _, err = cli(*verb, "--ckpt", "x", f"{flag}={number}")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {flag} is {number}; expected a number of at most 62 bits.")


@pytest.mark.parametrize(
    "allocate", [lambda: torch.empty(2**60), lambda: np.empty(2**50), lambda: b" " * 2**60], ids=["torch", "numpy", "-"]
)
def test_a_lack_of_memory_is_reported_in_one_sentence(allocate, capfd):
    assert guarded(allocate) == 2
    assert capfd.readouterr().err.startswith("error: There is not enough memory. Use fewer or smaller images")


def test_an_interrupted_import_of_a_c_extension_is_an_interrupt(capfd):
    def work():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error  # as pybind11 does

    assert guarded(work) == 130
    assert capfd.readouterr().err == "\nstopped.\n"


class _Kept:
    pass


class _Destroyed:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("where", ["weakref", "destructor"])
def test_an_interrupt_that_python_only_prints_still_ends_the_command(where, monkeypatch, cli):
    def main(verb, argv):
        thing = {"weakref": _Kept, "destructor": _Destroyed}[where]()
        called = weakref.ref(thing, lambda _: where == "weakref" and signal.raise_signal(signal.SIGINT))
        del thing  # the interrupt cannot be raised here
        time.sleep(20)
        print("not stopped", called)

    monkeypatch.setitem(genbench.cli.VERBS, "lose", ("lose", ""))
    monkeypatch.setitem(sys.modules, "genbench.cli.lose", SimpleNamespace(main=main))
    # a shell without a terminal starts background commands with SIGINT ignored, and pytest may be one
    before, hook = signal.signal(signal.SIGINT, signal.default_int_handler), sys.unraisablehook
    try:
        start = time.monotonic()
        status, out, err = cli("lose")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, out, err) == (130, "", "\nstopped.\n")
    assert time.monotonic() - start < 15
    assert sys.unraisablehook is hook
