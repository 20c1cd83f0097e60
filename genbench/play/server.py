"""Serves the page to this machine only, and contacts no other machine."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from genbench.core.errors import UserError, counted
from genbench.play.actions import Loaded

HOST = "127.0.0.1"
FIRST_PORT, PORTS = 7860, 100
# Gradio's page needs inline scripts and styles, and compiles templates
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'none'; "
    "base-uri 'self'"
)


def free_port(wanted: int | None = None) -> int:
    """The wanted port, or the first free one from 7860.

    Raises:
        UserError: the port is in use, or not allowed.
    """
    for port in [wanted] if wanted is not None else range(FIRST_PORT, FIRST_PORT + PORTS):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as in the server: a port just closed is free
            try:
                tried.bind((HOST, port))
            except OSError as error:
                if wanted is not None:
                    why = "is in use" if error.errno == errno.EADDRINUSE else error.strerror
                    raise UserError(
                        f"--port {wanted} {why}. Use a different port, or omit --port to use a free one."
                    ) from error
            else:
                return port
    raise UserError(f"All ports from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are in use. Set a different `--port`.")


class LocalOnly:
    """ASGI middleware: refuses requests for other machines, and forbids the browser to contact other machines.

    Gradio's route `file=` would fetch a URL. A page of another site whose name resolves to 127.0.0.1 (DNS
    rebinding) sends a different Host header.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").rpartition(":")[0]
        path = scope["path"].lower()
        if host not in (HOST, "localhost") or "file=http" in path or "/proxy=" in path:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            return await send({"type": "http.response.body", "body": b"Not allowed."})

        async def with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        try:
            await self.app(scope, receive, with_policy)
        except RuntimeError as error:  # Gradio 6 raises it when a page is reloaded before its first event
            if "response already started" not in str(error):
                raise
            await send({"type": "http.response.body", "body": b""})


def _configure(folder: str) -> None:
    """Set Gradio's variables before it is imported. Its defaults contact servers; other values could expose files."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(
        filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), HOST, "localhost"))
    )  # the server sends itself a request to check that it runs


@contextmanager
def served(models: Sequence[Loaded], port: int | None = None) -> Iterator[str]:
    """Serve the page in the background. Yields its address. Uploads are removed at the end.

    Raises:
        UserError: Gradio is not installed, or the port is in use.
    """
    free_port(port)  # before the page is built, which takes seconds
    with tempfile.TemporaryDirectory(prefix="genbench-play-", ignore_cleanup_errors=True) as folder:
        _configure(folder)
        try:
            import gradio as gr
        except ImportError as error:
            raise UserError(f'`play` needs Gradio: `pip install "genbench[play]"` ({error}).') from error
        from fastapi.middleware import Middleware

        from genbench.play.interface import CSS, page
        from genbench.play.uploads import MOST_BYTES

        blocks = page(models)
        fonts = ["system-ui", "sans-serif"]
        theme = gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]).set(
            block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300"
        )
        blocks.queue(api_open=False)
        try:
            blocks.launch(  # without a port, Gradio uses the first one from 7860 that it can open
                server_name=HOST, server_port=port, share=False, inbrowser=False, prevent_thread_lock=True, quiet=True,
                show_error=True, footer_links=[], run_history=False, allowed_paths=[], max_file_size=MOST_BYTES,
                enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False, theme=theme, css=CSS,
                app_kwargs={"middleware": [Middleware(LocalOnly)]},
            )  # fmt: skip
        except OSError:
            free_port(port)  # says so if another process has taken the port since
            raise
        try:
            yield f"http://{HOST}:{blocks.server_port}"
        finally:
            blocks.close(verbose=False)


def serve(models: Sequence[Loaded], port: int | None, browser: bool) -> None:
    """Serve the page until Ctrl-C."""
    with served(models, port) as address:
        print(
            f"{counted(len(models), 'model')} at {address} (on this machine only). Ctrl-C stops.",
            flush=True,
        )
        if browser:
            webbrowser.open(address)
        threading.Event().wait()
