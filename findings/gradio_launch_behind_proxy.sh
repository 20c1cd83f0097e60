#!/usr/bin/env bash
# Gradio's launch() on 127.0.0.1 fails where HTTP_PROXY is set and NO_PROXY is not: it asks its own page through the proxy.
#
# Expected: a page for this machine alone, with share=False, starts without any request that a proxy could see.
# Seen: launch() starts the server and then requests http://127.0.0.1:PORT/gradio_api/startup-events with httpx, which
# uses the proxy of the environment also for 127.0.0.1. If the proxy cannot reach this machine, launch() raises
# httpx.ConnectError without naming the proxy. With NO_PROXY=127.0.0.1 it starts.
# Why it matters: clusters and companies set HTTP_PROXY for all users, where a local page then ends with an error that
# looks as if the network was down. genbench excludes 127.0.0.1 from proxies before it starts its page.
#
# Measured on 2026-11-29 with gradio 6.31.0, Python 3.11.
# Output seen: proxy: ConnectError; proxy and NO_PROXY=127.0.0.1: launched
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'gradio==6.31.0'
cd "$folder"
cat > launch.py <<'PY'
import gradio

with gradio.Blocks() as page:
    gradio.Markdown("page")
try:
    page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, share=False)
except Exception as error:
    print(type(error).__name__)
else:
    print("launched")
    page.close()
PY
unset no_proxy NO_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
export GRADIO_ANALYTICS_ENABLED=False http_proxy=http://127.0.0.1:9 HTTP_PROXY=http://127.0.0.1:9
behind=$(venv/bin/python launch.py 2>/dev/null | grep -o -m 1 -E "launched|[A-Za-z]+Error")
excluded=$(no_proxy=127.0.0.1 NO_PROXY=127.0.0.1 venv/bin/python launch.py 2>/dev/null | grep -o -m 1 -E "launched|[A-Za-z]+Error")
[ "$behind" = ConnectError ] && [ "$excluded" = launched ] || { echo "changed: $behind, $excluded" >&2; exit 1; }
echo "proxy: $behind; proxy and NO_PROXY=127.0.0.1: $excluded"
