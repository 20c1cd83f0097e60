"""play: from the command to the page, and to the sentence that a wrong argument gets."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from genbench.core.batch import DataSpec
from genbench.models import VAE
from tests.cli.test_translate import checkpoint


def test_bad_input_is_a_sentence(cli, monkeypatch):
    checkpoint(VAE(DataSpec((1, 16, 16)), width=4, latent_dim=4))
    with pytest.raises(SystemExit) as ended:
        cli("play")
    assert ended.value.code == 2
    status, _, error = cli("play", "--ckpt", "missing.ckpt")
    assert status == 2 and error == "error: --ckpt missing.ckpt: there is no checkpoint at missing.ckpt.\n"
    for port in ("0", "70000"):
        status, _, error = cli("play", "--ckpt", "model.ckpt", "--port", port)
        assert (status, error) == (2, f"error: --port is {port}; expected a number from 1 to 65535.\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, error = cli("play", "--ckpt", "missing.ckpt", "--port", port)  # said before a model is loaded
    assert status == 2 and error.startswith(f"error: --port {port} is in use. Use a different port")
    find = importlib.util.find_spec
    monkeypatch.setattr("genbench.cli.play.find_spec", lambda name: None if name == "gradio" else find(name))
    status, _, error = cli("play", "--ckpt", "model.ckpt")
    assert (status, error) == (
        2,
        'error: `play` needs Gradio, which is not installed: `pip install "genbench[play]"`.\n',
    )


def test_a_file_that_is_no_checkpoint_is_refused_unread(cli, tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"no checkpoint")
    status, _, error = cli("play", "--ckpt", "model.ckpt")
    assert status == 2 and "It was not loaded" in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_serves_two_models_and_stops(cli, tmp_path, number):
    pytest.importorskip("gradio")
    for name in ("a.ckpt", "b.ckpt"):
        checkpoint(VAE(DataSpec((1, 16, 16)), width=4, latent_dim=4), name)
    # a shell without a terminal starts background commands with SIGINT ignored, and pytest may be one
    start = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    command = [sys.executable, "-m", "genbench", "play", "--ckpt", "a.ckpt", "b.ckpt"]
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=start, env=environment
    ) as process:
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            assert line.startswith("2 models at http://127.0.0.1:") and line.endswith("Ctrl-C stops.\n")
            with urllib.request.urlopen(line.split()[3], timeout=20) as answer:
                assert answer.status == 200
            begun = time.monotonic()
            process.send_signal(number)
            out, error = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, error) == (130, "", "\nstopped.\n")
    assert time.monotonic() - begun < 15 and not list((tmp_path / "temporary").glob("genbench-play-*"))
