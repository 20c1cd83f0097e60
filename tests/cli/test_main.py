"""The first thing that a newcomer types."""

import subprocess
import sys

import pytest

import genbench


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"]])
def test_the_first_answer_imports_nothing_heavy(arguments):
    script = (
        "import sys; from genbench.cli import main; main(sys.argv[1:]);"
        "heavy = {'torch', 'lightning', 'torchvision', 'matplotlib', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert genbench.__version__ in done.stdout


def test_it_lists_the_verbs_and_the_configs_at_hand(cli):
    status, out, _ = cli()
    assert status == 0
    for word in ("fit", "validate", "test", "sample", "check", "quickstart", "dcgan", "vae", "logger/wandb"):
        assert word in out


def test_a_wrong_verb_lists_those_there_are(cli):
    status, _, err = cli("trian")
    assert status == 2 and "there is no verb 'trian'; there are fit, validate" in err


def test_python_m_genbench_is_the_same_door():
    done = subprocess.run([sys.executable, "-m", "genbench", "--version"], capture_output=True, text=True)
    assert done.stdout == f"genbench {genbench.__version__}\n"


@pytest.mark.parametrize("spelled", [["--data.range", "-1,3"], ["--data.range=-1,3"]])
def test_a_list_that_begins_with_a_minus_is_a_value(monkeypatch, spelled):
    import genbench.cli

    taken = []
    monkeypatch.setattr(genbench.cli, "_run", lambda verb, argv: taken.append(argv) or 0)
    genbench.cli.main(["fit", "--seed_everything", "-1", *spelled, "--name", "x"])
    assert taken == [["--seed_everything", "-1", "--data.range=-1,3", "--name", "x"]]
