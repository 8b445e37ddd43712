"""A Hub id, against a real server that speaks the Hub's protocol: config only, revision, cache, offline."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest
import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub():
    """A server with one repository, tiny/llama, that remembers which files were asked for."""
    asked = []
    content = (tiny.checkpoint() / "config.json").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, *, body):
            asked.append((self.command, self.path))
            found = self.path.startswith("/tiny/llama/resolve/") and self.path.endswith("/config.json")
            data = content if found else b"{}"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", '"tiny"')
            self.send_header("X-Repo-Commit", COMMIT)
            if not found:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def check(target, home, **environment):
    """Run kbitlint in a process of its own: huggingface_hub reads its environment when it is imported."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE"))}
    env |= {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    command = [sys.executable, "-m", "kbitlint", "check", target, "--quantize", "nf4", "--format", "json"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=home)


@pytest.mark.slow
def test_a_hub_id_is_audited_from_its_config_then_from_the_cache(hub, tmp_path):
    endpoint, asked = hub

    online = check("tiny/llama@v1", tmp_path, HF_ENDPOINT=endpoint)
    paths = {path for _, path in asked}
    offline = check("tiny/llama@v1", tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")

    assert (online.returncode, offline.returncode) == (1, 1), online.stderr + offline.stderr
    (target,) = json.loads(online.stdout)["targets"]
    assert {violation["code"] for violation in target["violations"]} == {"KB101", "KB201", "KB402"}
    assert offline.stdout == online.stdout
    assert "/tiny/llama/resolve/v1/config.json" in paths
    assert not [path for path in paths if path.endswith((".safetensors", ".bin"))]
