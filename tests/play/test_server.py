"""The page is served to this machine only, and shows no other file of it."""

import http.client
import json
import os
import socket
from contextlib import closing
from urllib.parse import quote

import pytest

gradio = pytest.importorskip("gradio")

from genbench.core.batch import DataSpec  # noqa: E402
from genbench.core.errors import UserError  # noqa: E402
from genbench.models import GAN, VAE  # noqa: E402
from genbench.play import interface, server  # noqa: E402
from genbench.play.actions import Loaded  # noqa: E402


def missing():
    raise UserError("the training images are not here.")


@pytest.fixture(scope="module")
def models():
    spec = DataSpec((1, 16, 16), "label", tuple("0123456789"))
    return [Loaded("first", "VAE", VAE(spec, width=4, latent_dim=4).eval().requires_grad_(False), {}, missing)]


@pytest.fixture(scope="module")
def address(models, tmp_path_factory):
    """Served with variables in the environment that would open the machine."""
    secret = tmp_path_factory.mktemp("secret") / "secret.txt"
    secret.write_text("a secret")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_ALLOWED_PATHS", "/")
    patch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    patch.setenv("GRADIO_SHARE", "True")
    patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nothing listens there
    with server.served(models) as found:
        yield found.removeprefix("http://"), secret
    patch.undo()


def ask(address, path, host=None, method="GET", body=None, headers=None):
    with closing(http.client.HTTPConnection(address, timeout=20)) as connection:
        connection.request(method, path, body, {"Host": host or address, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers


def test_it_answers_on_the_local_address_only(address):
    where, _ = address
    port = int(where.partition(":")[2])
    assert ask(where, "/")[0] == 200 and port >= 7860
    with open("/proc/net/tcp") as table:  # local address and state of each socket; 0A is listening
        local = [line.split()[1] for line in table if line.split()[3] == "0A"]
    assert [found for found in local if found.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_no_file_of_the_machine_is_served(address):
    where, secret = address
    folder = os.environ["GRADIO_TEMP_DIR"]
    paths = [str(secret), "README.md", "../README.md", f"{folder}/../{secret.name}", __file__, interface.__file__]
    for path in paths:
        for form in (path, quote(path, safe="")):
            status, body, _ = ask(where, f"/gradio_api/file={form}")
            assert status in (403, 404) and b"a secret" not in body and len(body) < 1000, path
    assert gradio.__file__ and ask(where, "/gradio_api/file=/etc/hostname")[0] == 403


def test_other_machines_are_not_asked_for_anything(address):
    where, _ = address
    for url in (
        "http://127.0.0.1:9/x",
        "https://example.invalid/x",
        "HTTP://example.invalid/x",
        "http%3A//example.invalid",
    ):
        assert ask(where, f"/gradio_api/file={url}")[:2] == (403, b"Not allowed.")
        assert ask(where, f"/gradio_api/proxy={url}")[:2] == (403, b"Not allowed.")
    policy = ask(where, "/")[2]["content-security-policy"]
    assert policy.startswith("default-src 'self'") and "http" not in policy


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:7860", "0.0.0.0:7860", "[::1]:7860", ""])
def test_a_name_that_another_site_points_here_is_refused(address, host):
    assert ask(address[0], "/", host=host or " ")[0] in (400, 403)
    assert ask(address[0], "/", host="localhost:7860")[0] == 200


def test_an_upload_over_10_mb_is_refused(address):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        + bytes(11 * 2**20)
        + b"\r\n--x--"
    )
    try:
        status = ask(address[0], "/gradio_api/upload", method="POST", body=body,
                     headers={"Content-Type": "multipart/form-data; boundary=x"})[0]  # fmt: skip
    except (BrokenPipeError, ConnectionResetError):  # it does not wait for the rest
        status = 413
    assert status == 413


def test_an_uploaded_path_that_was_not_uploaded_is_not_read(address):
    where, secret = address
    config = json.loads(ask(where, "/config")[1])
    uploads = [c["id"] for c in config["components"] if c["type"] == "file"]
    event = next(d for d in config["dependencies"] if uploads[-1] in d["inputs"] and len(d["inputs"]) == 1)
    data = {"data": [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}], "fn_index": event["id"],
            "session_hash": "abc"}  # fmt: skip
    status, body, _ = ask(where, "/gradio_api/queue/join", method="POST", body=json.dumps(data),
                          headers={"Content-Type": "application/json"})  # fmt: skip
    assert status != 200 or b"event_id" in body
    _, body, _ = ask(where, "/gradio_api/queue/data?session_hash=abc")
    assert b"a secret" not in body and b'"success":false' in body.replace(b" ", b"")


def test_analytics_and_other_variables_of_the_environment_are_off(address):
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert "GRADIO_ALLOWED_PATHS" not in os.environ and "GRADIO_SHARE" not in os.environ
    assert not gradio.analytics.analytics_enabled()


def test_uploads_are_removed_when_it_stops_and_the_port_is_free_again(models):
    with server.served(models) as address:
        folder, port = os.environ["GRADIO_TEMP_DIR"], int(address.rpartition(":")[2])
        assert os.path.isdir(folder) and os.stat(folder).st_mode & 0o077 == 0
        assert server.free_port() != port
    assert not os.path.exists(folder) and server.free_port(port) == port


def test_a_port_in_use_is_a_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port} is in use. Use a different port, or omit --port"):
            server.free_port(port)
        assert server.free_port() >= 7860


def test_every_text_of_a_model_is_escaped():
    evil = '<img src=x onerror="window.ran=1">'
    found = interface.html(Loaded(evil, evil, None, {}, missing), texts=[evil], classes={evil: 0.5}, error=evil)
    assert "<img" not in found and found.count("&lt;img src=x onerror=&quot;window.ran=1&quot;&gt;") == 5


def test_a_model_with_nothing_to_show_is_a_sentence():
    class Nothing(GAN):
        sample = None

    model = Nothing(DataSpec((2,)))
    with pytest.raises(UserError, match="points has no ability that the page can show"):
        interface.page([Loaded("points", "", model, {}, missing)])


def test_events_of_a_page_that_was_left_end_without_a_traceback(address, capfd):
    status, _, _ = ask(address[0], "/gradio_api/queue/data?session_hash=never-seen")
    assert status == 200 and "Traceback" not in "".join(capfd.readouterr())
