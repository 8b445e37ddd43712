"""A stranger's config is data: no key of it reaches a file elsewhere, the network, a process or code."""

from __future__ import annotations

import contextvars
import ctypes
import dataclasses
import importlib.util
import json
import os
import pickle
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import peft
import pytest
import tiny
import transformers
from hypothesis import given
from hypothesis import strategies as st
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as CLASSES

import kbitlint
from kbitlint.errors import KbitlintError, TargetError
from kbitlint.files import config_keys
from kbitlint.model.build import meta
from kbitlint.model.build.adapter_config import peft_config
from kbitlint.runtime.confinement import RefusedError, confined, lifted

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 256,
    "dtype": "bfloat16",
}


@pytest.fixture
def outside(tmp_path_factory):
    """A folder that is no target's business, with a secret, a module, a pickle and a library."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret").write_text("hunter2")
    (folder / "payload.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n")
    (folder / "evil.bin").write_bytes(pickle.dumps(os.system))
    (folder / "evil.so").write_bytes(b"\x7fELF")
    return folder


def load_module(path):
    spec = importlib.util.spec_from_file_location("payload", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def connect(address):
    with socket.socket() as client:
        client.connect(address)


#: the act -> (what does it in a folder outside, what the line says)
ACTS = {
    "read": (lambda outside: (outside / "secret").read_text(), "read {}/secret"),
    "write": (lambda outside: (outside / "new").write_text("x"), "write {}/new"),
    "make a folder": (lambda outside: (outside / "new").mkdir(), "write {}/new"),
    "rename": (lambda outside: (outside / "secret").rename(outside / "new"), "write {}/secret"),
    "remove": (lambda outside: (outside / "secret").unlink(), "write {}/secret"),
    "link": (lambda outside: (outside / "new").symlink_to("secret"), "write "),
    "database": (lambda outside: sqlite3.connect(outside / "new").close(), "write {}/new"),
    "connect": (lambda _: connect(("127.0.0.1", 9)), "connect to ('127.0.0.1', 9)"),
    "look up": (lambda _: socket.getaddrinfo("huggingface.co", 443), "connect to huggingface.co"),
    "process": (lambda _: subprocess.run(["/bin/true"], check=True), "start the process /bin/true"),
    "shell": (lambda _: os.system("true"), "start the process true"),  # noqa: S605, S607
    "spawn": (lambda _: os.posix_spawn("/bin/true", ["true"], {}), "start the process /bin/true"),
    "fork": (lambda _: os.fork() or os._exit(0), "start a process"),
    "signal": (lambda _: os.kill(os.getpid(), 0), "signal a process"),
    "module": (lambda outside: load_module(outside / "payload.py"), "read {}/payload.py"),
    "module of the folder": (lambda _: load_module("payload.py"), "run the code of {cwd}/payload.py"),
    "library": (lambda outside: ctypes.CDLL(str(outside / "evil.so")), "load the library {}/evil.so"),
    "pickle": (lambda outside: pickle.loads(pickle.dumps(os.system)), "unpickle posix system"),  # noqa: S301
}


@pytest.mark.parametrize("act", ACTS)
def test_an_act_that_no_config_may_ask_for(act, outside, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("payload.py").write_text(f"open({str(outside / 'ran')!r}, 'w').close()\n")
    do, words = ACTS[act]
    before = sorted(outside.iterdir())

    with pytest.raises(TargetError) as caught, confined("config.json", tmp_path):
        do(outside)

    words = words.replace("{cwd}", str(tmp_path)).replace("{}", str(outside))
    line = f"config.json: a model that is built from a config may not {words}"
    assert str(caught.value).startswith(line), caught.value
    assert str(caught.value).endswith(" (unless you pass --trust-remote-code)")
    assert sorted(outside.iterdir()) == before
    assert (outside / "secret").read_text() == "hunter2"


def test_what_building_needs_is_allowed(tmp_path):
    (tmp_path / "own.json").write_text("{}")

    with confined("config.json", tmp_path):
        assert (tmp_path / "own.json").read_text() == "{}"
        assert Path(transformers.__file__).read_bytes()
        assert Path("/proc/self/status").read_bytes()
        ctypes.CDLL(None)
        import ftplib  # noqa: F401  # a module that nothing imports before
    (tmp_path / "after").write_text("what is outside of the block is free")


@pytest.mark.parametrize(
    "path",
    ["{here}/link", "{here}/../{outside}/secret", "{here}/up/secret", "/proc/self/root{real}/secret", "{prefix}/../../x"],
)
def test_no_path_leads_out(outside, tmp_path, path):
    (tmp_path / "link").symlink_to(outside / "secret")
    (tmp_path / "up").symlink_to(outside)
    relative = os.path.relpath(outside, tmp_path.parent)
    named = {"here": tmp_path, "outside": relative, "real": outside, "prefix": sys.prefix}

    with pytest.raises(TargetError, match="may not read"), confined("config.json", tmp_path):
        Path(path.format(**named)).read_text()


def test_an_act_that_the_library_does_without_is_refused_and_no_failure(outside):
    with confined("config.json"):
        try:
            found = (outside / "secret").read_text()
        except OSError as error:
            found = type(error)

    assert found is RefusedError


def test_another_failure_keeps_its_own_words(outside):
    def fail():
        raise ValueError("its own")

    def fail_with_a_reason():
        try:
            (outside / "secret").read_text()
        except OSError as error:
            raise RuntimeError("could not build") from error

    with pytest.raises(ValueError, match="its own"), confined("config.json"):
        fail()
    with pytest.raises(TargetError, match="may not read"), confined("config.json"):
        fail_with_a_reason()


def test_threads_started_inside_are_confined_and_others_are_not(outside):
    found, go, done = {}, threading.Event(), threading.Event()

    def read(name, *, wait=False):
        if wait:
            go.wait(10)
        try:
            found[name] = (outside / "secret").read_text()
        except OSError as error:
            found[name] = type(error)
        done.set()

    before = threading.Thread(target=read, args=("before",), kwargs={"wait": True})
    before.start()
    with confined("config.json"):
        within, late = threading.Thread(target=read, args=("within",)), threading.Event()
        left = threading.Thread(target=lambda: (late.wait(10), read("left behind")))
        within.start(), left.start(), go.set()
        within.join(10), before.join(10)
        contextvars.Context().run(read, "own context")
    late.set(), left.join(10)
    read("after")

    refused, free = RefusedError, "hunter2"
    assert found == {"before": free, "within": refused, "left behind": refused, "own context": free, "after": free}


def test_what_the_user_chose_is_free_inside(outside):
    with confined("config.json"):
        with lifted():
            assert (outside / "secret").read_text() == "hunter2"
        with pytest.raises(RefusedError):
            (outside / "secret").read_text()


# ------------------------------------------------------------------------------------- a key that nobody thought of


class ActingConfig(transformers.LlamaConfig):
    model_type = "acting"


class ActingModel(transformers.LlamaForCausalLM):
    config_class = ActingConfig

    def __init__(self, config):
        if config.act_when == "built":
            ACTS[config.act][0](Path(config.act_at))
        super().__init__(config)

    def forward(self, *args, **kwargs):
        if self.config.act_when == "run":
            ACTS[self.config.act][0](Path(self.config.act_at))
        return super().forward(*args, **kwargs)


@pytest.fixture
def acting(tmp_path, outside):
    """A checkpoint of an architecture that does what a key of its config says, and where."""
    transformers.AutoConfig.register("acting", ActingConfig, exist_ok=True)
    transformers.AutoModelForCausalLM.register(ActingConfig, ActingModel, exist_ok=True)

    def make(act, when="built"):
        folder = tmp_path / "acting"
        folder.mkdir(exist_ok=True)
        config = {**LLAMA, "model_type": "acting", "act": act, "act_at": str(outside), "act_when": when}
        (folder / "config.json").write_text(json.dumps({**config, "architectures": []}))
        return folder

    return make


@pytest.mark.parametrize("act", [act for act in ACTS if act not in ("module of the folder", "fork")])
def test_a_model_that_acts_on_its_config_is_refused_in_one_line(run, acting, outside, act):
    before = sorted(outside.iterdir())
    result = run("check", acting(act), "--quantize", "nf4")

    words = ACTS[act][1].replace("{}", str(outside))
    assert result.exit_code == 2, result.output
    assert re.fullmatch(r"kbitlint: \S+/acting/config.json: a model that is built .*\n", result.stderr), result.stderr
    assert words in result.stderr
    assert sorted(outside.iterdir()) == before


def test_a_model_that_acts_while_it_trains_is_a_skip_with_its_reason(acting):
    report = kbitlint.check(str(acting("process", "run")), quantize="nf4")

    assert [skip.reason for skip in report.skips if "may not start the process /bin/true" in skip.reason]
    assert "KB203" not in {violation.code for violation in report.violations}


def test_memory_is_confined_too(run, acting):
    result = run("memory", acting("process"), "--quantize", "nf4")

    assert (result.exit_code, "may not start the process /bin/true" in result.stderr) == (2, True)


def test_trust_lifts_it(acting):
    report = kbitlint.check(str(acting("process")), quantize="nf4", trust_remote_code=True)

    assert "ActingModel" in report.summary


def test_functions_of_the_user_do_as_they_like(run, outside, tmp_path):
    (tmp_path / "train.py").write_text(
        "import subprocess, transformers\n"
        "def build():\n"
        f"    subprocess.run(['true'], check=True); open({str(outside / 'secret')!r}).read()\n"
        f"    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{LLAMA!r}))\n"
    )

    result = run("check", "train.py:build")

    assert (result.exit_code, result.stderr, "LlamaForCausalLM" in result.stdout) == (1, "", True)


# ---------------------------------------------------------------------------------------------------------- adapters


def adapter(folder, base=None, **config):
    folder.mkdir(parents=True, exist_ok=True)
    named = {"base_model_name_or_path": str(base or tiny.checkpoint()), "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps({**named, **config}))
    return folder


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {
                "peft_type": "MULTITASK_PROMPT_TUNING",
                "num_virtual_tokens": 4,
                "num_tasks": 1,
                "prompt_tuning_init": "EXACT_SOURCE_TASK",
                "prompt_tuning_init_state_dict_path": "OUTSIDE/evil.bin",
            },
            "prompt_tuning_init_state_dict_path: names a file, which PEFT would unpickle",
        ),
        (
            {"peft_type": "LORA", "target_modules": ["q_proj"], "megatron_core": "payload", "megatron_config": {"x": 1}},
            "megatron_config: names a configuration of Megatron, for which PEFT would import a package",
        ),
        ({"peft_type": "XLORA", "hidden_size": 64, "adapters": {"0": "evil/x"}}, "adapters: names further adapters"),
        ({"peft_type": "SHADOW", "shadow_model": "evil/x"}, "shadow_model: must be one of mirror"),
        ({"peft_type": "LORA", "target_modules": ["q_proj"], "bias": "../x"}, "bias: must hold one word or a flag"),
        ({"peft_type": "LORA", "target_modules": {"x": 1}}, "target_modules: must hold names of modules"),
        ({"peft_type": "LORA", "r": "OUTSIDE/evil.bin"}, "r: must hold a number"),
        ({"peft_type": "LORA", "loftq_config": {"x": {"y": "z"}}}, "loftq_config: must hold an object of numbers and words"),
        ({"peft_type": "LORAX"}, "peft_type: 'LORAX' is unknown to the installed PEFT"),
    ],
)
def test_a_key_of_an_adapter_is_refused_by_name(run, tmp_path, outside, config, words):
    folder = adapter(tmp_path / "ad", **json.loads(json.dumps(config).replace("OUTSIDE", str(outside))))
    if config["peft_type"] == "SHADOW" and "SHADOW" not in {kind.value for kind in CLASSES}:
        pytest.skip("this PEFT has no Shadow")

    for command in (("check", folder, "--quantize", "nf4"), ("--fix", folder, "--quantize", "nf4", "--device", "cpu")):
        result = run(*command)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert result.stderr.startswith(f"kbitlint: {folder}/adapter_config.json: {words}"), result.stderr
        assert result.stderr.count("\n") == 1


def test_a_prompt_from_text_needs_no_tokenizer(tmp_path):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.checkpoint())
    made = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    peft.get_peft_model(model, made).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    text = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "x", "tokenizer_name_or_path": "evil/x"}
    config = {**json.loads(file.read_text()), "base_model_name_or_path": str(tiny.checkpoint())}
    file.write_text(json.dumps(config))
    plain = kbitlint.check(str(tmp_path), quantize="nf4")
    file.write_text(json.dumps({**config, **text, "tokenizer_kwargs": {"use_fast": True}}))

    assert tiny.codes(kbitlint.check(str(tmp_path), quantize="nf4")) == tiny.codes(plain)


def test_an_adapter_is_loaded_with_what_is_passed_on(tmp_path):
    made = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.checkpoint())
    peft.get_peft_model(model, made).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    further = {"auto_mapping": {"parent_library": "payload", "base_model_class": "x"}, "megatron_core": "payload", "new": "x"}
    config = {**json.loads(file.read_text()), "base_model_name_or_path": str(tiny.checkpoint()), **further}
    file.write_text(json.dumps(config))

    fixed = kbitlint.fix(str(tmp_path), quantize="nf4", device="cpu")

    assert fixed.applied.probe.failure is None
    model = kbitlint.load_prepared(tmp_path, device="cpu")
    assert (type(model).__name__, model.peft_config["default"].megatron_core) == ("PeftModelForCausalLM", "megatron.core")


#: what PEFT's own classes need to be made
NEEDED = {
    "target_modules": ["q_proj"],
    "num_virtual_tokens": 4,
    "token_indices": [1, 2],
    "total_step": 100,
    "hidden_size": 64,
    "adapter_len": 4,
    "adapter_layers": 1,
    "vector_length": 16,
    "feedforward_modules": [],
    "encoder_hidden_size": 32,
}


@pytest.mark.parametrize("kind", sorted(kind.value for kind in CLASSES))
def test_what_peft_saves_of_an_ordinary_adapter_is_passed_on_whole(tmp_path, kind):
    cls = next(cls for name, cls in CLASSES.items() if name.value == kind)
    names = {field.name for field in dataclasses.fields(cls)}
    values = {key: value for key, value in NEEDED.items() if key in names}
    try:
        made = cls(task_type="CAUSAL_LM", base_model_name_or_path="base", **values)
    except ImportError as error:
        pytest.skip(str(error))
    made.save_pretrained(tmp_path)

    expected = made.to_dict() | ({"progressbar": False} if "progressbar" in names else {})
    assert peft_config(tmp_path / "adapter_config.json").to_dict() == expected


def test_a_key_that_peft_does_not_know_is_left_out_and_said(tmp_path):
    folder = adapter(tmp_path / "ad", peft_type="LORA", target_modules=["q_proj"], of_tomorrow="/etc/passwd", empty=None)

    report = kbitlint.check(str(folder), quantize="nf4")

    note = f"adapter_config.json: 'of_tomorrow' left out, which PEFT {peft.__version__} does not know"
    assert [line for line in report.notes if "left out" in line] == [note]


def test_every_key_of_every_peft_class_is_decided():
    """A new PEFT's new keys are named here; until they are decided, values other than their defaults are refused."""
    names = {field.name for cls in CLASSES.values() for field in dataclasses.fields(cls) if field.init}
    decided = {*config_keys.KINDS, *config_keys.LEFT_OUT, *config_keys.REFUSED, *config_keys.ONLY}

    assert sorted(names - decided) == []


def test_a_key_that_is_not_decided_is_refused_unless_it_is_at_its_default():
    file, defaults = Path("adapter_config.json"), {"r": 8, "new": False}

    assert config_keys.adapter_values(file, {"r": 4, "new": False, "newer": "x"}, defaults) == {"r": 4, "new": False}
    with pytest.raises(TargetError, match="new: is not known to this version of kbitlint"):
        config_keys.adapter_values(file, {"new": True}, defaults)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a/b", "/etc/passwd"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted({*config_keys.KINDS, *config_keys.REFUSED, *config_keys.ONLY})), VALUES)
def test_any_value_of_any_key_is_passed_on_or_refused(key, value):
    try:
        passed = config_keys.adapter_values(Path("f"), {key: value}, {key: None})
    except KbitlintError as error:
        assert str(error).startswith(f"f: {key}: ")  # noqa: PT017  # both outcomes are right
    else:
        assert passed in ({key: value}, {key: "RANDOM"}, {key: False})


# ------------------------------------------------------------------------------------------------------------ models


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "dpt", "backbone": "evil/x", "use_pretrained_backbone": True}, "backbone: names the model 'evil/x'"),
        ({"model_type": "detr", "backbone": "hf-hub:evil/x"}, "backbone: names the model 'hf-hub:evil/x'"),
        ({**LLAMA, "text_config": {"backbone": "evil/x"}}, "text_config.backbone: names the model 'evil/x'"),
        ({**LLAMA, "attn_implementation": {"": "evil/x"}}, "attn_implementation: asks for the kernel 'evil/x'"),
        ({**LLAMA, "transformers_weights": "../x.safetensors"}, "transformers_weights: names the file '../x.safetensors'"),
        ({**LLAMA, "transformers_weights": "x.bin"}, "transformers_weights: names the file 'x.bin'"),
    ],
)
def test_a_key_of_a_model_is_refused_by_name(run, tmp_path, values, words):
    (tmp_path / "config.json").write_text(json.dumps(values))

    result = run("check", tmp_path, "--quantize", "nf4")

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert result.stderr.startswith(f"kbitlint: {tmp_path}/config.json: {words}"), result.stderr


def test_no_process_is_started_for_a_model_that_would_compile(tmp_path):
    """rwkv of transformers looks for a compiler when it is built."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rwkv", "hidden_size": 64, "num_hidden_layers": 2}))
    code = (
        "import sys, kbitlint\n"
        "try:\n    from kbitlint.runtime import confinement; confinement._install()\n"
        "except ImportError:\n    pass\n"
        "import torch, transformers, bitsandbytes\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, arguments: seen.append(arguments[0]) if event == 'subprocess.Popen' else None)\n"
        f"report = kbitlint.check({str(tmp_path)!r}, quantize='nf4')\n"
        "print('SEEN', seen, report.summary[:4])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=240
    )

    assert done.stdout == "SEEN [] Rwkv\n", done.stderr[-2000:]


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("adapter_config.json", {"target_modules": "(.*.*.*.*.*.*)*!"}, "PEFT does not get done with it: it takes longer than"),
        (
            "adapter_config.json",
            {"target_modules": ["q_proj"], "rank_pattern": {"(.*.*.*.*.*.*)*!": 2}},
            "PEFT does not get done",
        ),
        ("config.json", {"quantization_config": {"llm_int8_skip_modules": ["(.*.*.*.*.*.*)*!"]}}, "it takes longer than"),
    ],
    ids=["target_modules", "rank_pattern", "llm_int8_skip_modules"],
)
def test_a_pattern_without_end_is_stopped(run, tmp_path, monkeypatch, file, values, words):
    """Libraries match patterns of a config as they are. The limit of CPU time is shortened for the test."""
    monkeypatch.setattr(meta, "_SECONDS", 0.3)
    if file == "config.json":
        bitsandbytes = {"quant_method": "bitsandbytes", "load_in_4bit": True, **values["quantization_config"]}
        (tmp_path / file).write_text(json.dumps({**LLAMA, "quantization_config": bitsandbytes}))
        folder, further = tmp_path, ()
    else:
        folder, further = adapter(tmp_path / "ad", peft_type="LORA", task_type="CAUSAL_LM", **values), ("--quantize", "nf4")
    result = run("check", folder, *further)

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    assert result.stderr.startswith(f"kbitlint: {folder}"), result.stderr
    assert words in result.stderr
