"""A Hub id, against a real server that speaks the Hub's protocol: config only, revision, cache, offline."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time

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


def check(target, home, *options, **environment):
    """Run kbitlint in a process of its own: huggingface_hub reads its environment when it is imported."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE"))}
    env |= {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    command = [sys.executable, "-m", "kbitlint", "check", target, *(options or ("--quantize", "nf4")), "--format", "json"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=home)


def test_a_hub_id_is_audited_from_its_config_then_from_the_cache(hub, tmp_path):
    endpoint, asked = hub

    online = check("tiny/llama@v1", tmp_path, HF_ENDPOINT=endpoint)
    paths = {path for command, path in asked if command == "GET"}
    offline = check("tiny/llama@v1", tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")

    assert (online.returncode, offline.returncode) == (1, 1), online.stderr + offline.stderr
    (target,) = json.loads(online.stdout)["targets"]
    assert {violation["code"] for violation in target["violations"]} == {"KB101", "KB201", "KB402"}
    assert offline.stdout == online.stdout
    assert "/tiny/llama/resolve/v1/config.json" in paths
    assert not [path for path in paths if path.endswith((".safetensors", ".bin"))]


# ----------------------------------------------------------------------------------------------------------- headers


@pytest.fixture
def repository(monkeypatch, tmp_path):
    """A repository whose headers a stand-in for HfApi hands out, in huggingface_hub's own classes."""
    import huggingface_hub
    from checkpoint_cases import BNB
    from huggingface_hub.utils import SafetensorsFileMetadata, SafetensorsRepoMetadata, TensorInfo

    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "llama", "quantization_config": BNB}))
    answers = {}

    class Api:
        def get_safetensors_metadata(self, name, revision=None):
            answer = answers[name, revision]
            if isinstance(answer, Exception):
                raise answer
            return answer

    def metadata(tensors):
        infos = {name: TensorInfo(dtype, list(shape), (0, 8)) for name, (dtype, shape) in tensors.items()}
        file = SafetensorsFileMetadata({}, infos)
        return SafetensorsRepoMetadata(None, False, dict.fromkeys(infos, "model.safetensors"), {"model.safetensors": file})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file, revision=None: str(config))
    return answers, metadata


def test_headers_of_a_repository_are_facts(repository):
    from checkpoint_cases import packed

    from kbitlint.files.hub import read_hub

    answers, metadata = repository
    answers["org/base", "v1"] = metadata({name: shape for name, shape in packed("q_proj").items() if "absmax" not in name})

    facts = read_hub("org/base", "v1")

    assert facts.config["model_type"] == "llama"
    assert [(item.module, item.missing) for item in facts.packing.packed] == [("q_proj", ("absmax",))]


def test_what_the_hub_does_not_give_is_unread(repository, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import OfflineModeIsEnabled, SafetensorsParsingError

    from kbitlint.files import hub
    from kbitlint.files.hub import read_hub

    answers, metadata = repository
    answers["org/base", None] = OfflineModeIsEnabled("offline")
    assert [item.problem for item in read_hub("org/base").unread] == [hub.UNREACHED]

    answers["org/base", None] = SafetensorsParsingError("the header is too long\nmore")
    assert [item.problem for item in read_hub("org/base").damages] == ["the header is too long"]

    answers["org/base", None] = metadata({"a": ("F32", (2,)), "b": ("F32", (2,))})
    monkeypatch.setattr(hub, "MAX_TENSORS", 1)
    assert [item.problem for item in read_hub("org/base").unread] == ["names more than 1 tensors"]

    def gone(*arguments, **options):
        raise OSError("no such repository")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", gone)
    assert read_hub("org/base") is None


def test_a_machine_without_a_network_is_told_so_at_once(tmp_path):
    """Nothing listens there; huggingface_hub alone would ask again for half a minute."""
    start = time.monotonic()
    result = check("tiny/llama", tmp_path, HF_ENDPOINT="http://127.0.0.1:9", no_proxy="*")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "kbitlint: tiny/llama: there is no such folder, and as a Hub id its config is neither in the cache nor reachable: "
        "check the name, the network and HF_HUB_OFFLINE; known by name alone are llama-7b, llama-13b, llama-30b, llama-65b\n"
    )
    assert time.monotonic() - start < 25  # 30 s of pauses alone


def test_a_function_that_asks_the_hub_for_a_model_ends_at_once_too(tmp_path):
    """huggingface_hub writes a line for each request that it repeats, and bitsandbytes one of its import."""
    (tmp_path / "f.py").write_text(
        "import peft\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "def build():\n    AutoTokenizer.from_pretrained('tiny/llama')\n"
        "    return AutoModelForCausalLM.from_pretrained('tiny/llama')\n"
    )

    result = check("f.py:build", tmp_path, "--meta", HF_ENDPOINT="http://127.0.0.1:9", no_proxy="*")

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("kbitlint: f.py:build: the factory raised OSError: We couldn't connect to ")


def test_without_a_network_the_cache_is_used_at_once(hub, tmp_path):
    endpoint, _ = hub
    online = check("tiny/llama", tmp_path, HF_ENDPOINT=endpoint)
    cut_off = check("tiny/llama", tmp_path, HF_ENDPOINT="http://127.0.0.1:9", no_proxy="*")

    assert online.returncode in (0, 1)
    assert (cut_off.returncode, cut_off.stderr) == (online.returncode, "")
    assert json.loads(cut_off.stdout)["targets"][0]["violations"] == json.loads(online.stdout)["targets"][0]["violations"]
