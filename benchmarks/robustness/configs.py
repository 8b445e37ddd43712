"""Configs of adapters and models that ask for files elsewhere, connections, processes or code.

``python -m benchmarks.robustness.run --only configs`` checks each of them in a process with an audit hook. An act that
reaches this hook was let through by kbitlint. A listening socket, pickles and modules that leave a mark show the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.robustness.malicious_inputs import ADAPTER, LLAMA, PAYLOAD, Payload, room, weights, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.robustness.trials import Tally

ROOT = Path(__file__).parents[2]
SECONDS = 60
_AT_ONCE = 120

#: key -> the other keys that make PEFT act on it
_WITH: dict[str, dict[str, Any]] = {
    "megatron_core": {"megatron_config": {"x": 1}},
    "megatron_config": {"megatron_core": "payload"},
    "prompt_tuning_init_state_dict_path": {"prompt_tuning_init": "EXACT_SOURCE_TASK"},
    "prompt_tuning_init_text": {"prompt_tuning_init": "TEXT", "tokenizer_name_or_path": "evil/tokenizer"},
    "tokenizer_name_or_path": {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "text"},
    "tokenizer_kwargs": {
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": "text",
        "tokenizer_name_or_path": "evil/tokenizer",
    },
    "corda_config": {"init_lora_weights": "corda"},
    "loftq_config": {"init_lora_weights": "loftq"},
    "eva_config": {"init_lora_weights": "eva"},
    "lora_ga_config": {"init_lora_weights": "lora_ga"},
}
#: values that PEFT's config classes need on a tiny Llama
_NEEDED: dict[str, Any] = {
    "target_modules": ["q_proj"],
    "num_virtual_tokens": 4,
    "token_indices": [1, 2],
    "encoder_hidden_size": 32,
    "total_step": 100,
    "hidden_size": 64,
    "adapter_len": 4,
    "adapter_layers": 1,
    "vector_length": 16,
    "n_frequency": 16,
    "feedforward_modules": [],
}


def _values(outside: Path) -> list[Any]:
    """Return values of every JSON type that no key may act on."""
    pickled = str(outside / "evil.bin")
    return [
        pickled,
        "evil/repository",
        "payload",
        str(outside / "evil.safetensors"),
        {"x": pickled, "cache_file": pickled, "covariance_file": pickled, "parent_library": "payload", "base_model_class": "x"},
        [pickled, "evil/repository"],
        "os.system",
        f"http://127.0.0.1:9/{outside.name}",
        {"0": str(outside), "1": "evil/repository"},
        True,
    ]


def adapters(outside: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, adapter_config.json) for every key of every PEFT config class, and for an unknown key."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    values = _values(outside)
    turn = itertools.cycle(values)
    for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        fields = [field.name for field in dataclasses.fields(cls) if field.init]
        plain = {**{key: value for key, value in _NEEDED.items() if key in fields}, "task_type": "CAUSAL_LM"}
        for key in (*fields, "something_new"):
            if key in ("peft_type", "base_model_name_or_path"):
                continue
            for value in values if key in _WITH or key in ("adapters", "shadow_model", "auto_mapping") else [next(turn)]:
                further = {name: item for name, item in _WITH.get(key, {}).items() if name in fields}
                yield f"{kind.value} {key} {value!r:.40}", {**plain, **further, "peft_type": kind.value, key: value}


_BACKBONES = ("evil/backbone", "hf-hub:evil/backbone", "local-dir:OUTSIDE", "resnet50", "OUTSIDE")
_PLACES = (
    *("_name_or_path", "name_or_path", "_commit_hash", "transformers_weights", "tokenizer_class", "tokenizer_name_or_path"),
    *("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation_internal"),
    *(
        "dtype",
        "torch_dtype",
        "hidden_act",
        "model_type",
        "configuration_files",
        "gguf_file",
        "vision_tower",
        "mm_vision_tower",
    ),
    *("text_config", "vision_config", "encoder", "decoder", "generator", "question_encoder", "custom_pipelines", "auto_map"),
    *("use_kernels", "kernel_config", "base_model_tp_plan", "generation_config", "rope_scaling", "rope_parameters", "adapter"),
)


def models(outside: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, config.json) of models that name backbones, repositories and files elsewhere.

    Every model type with a backbone is tried with each key for one. The other keys and methods are tried on a Llama.
    """
    from transformers import CONFIG_MAPPING
    from transformers.utils.quantization_config import QuantizationMethod

    for kind, keys in _backbone_keys(CONFIG_MAPPING):
        for key, value in itertools.product(keys, _BACKBONES):
            named = value.replace("OUTSIDE", str(outside))
            asked = {"use_pretrained_backbone": True, "use_timm_backbone": value != "resnet50", "backbone_config": None}
            within = {"model_type": "timm_backbone", "backbone": named, "use_pretrained_backbone": True}
            yield f"{kind} {key} {value}", {"model_type": kind, **asked, key: within if key.endswith("_config") else named}
    for key, value in itertools.product(_PLACES, _values(outside)):
        yield f"llama {key} {value!r:.40}", {**LLAMA, key: value}
    for method in QuantizationMethod:
        asked = {
            "quant_method": method.value,
            "bits": 4,
            "load_in_4bit": True,
            "kernel": "evil/kernel",
            "backend": "evil/kernel",
        }
        for value in _values(outside)[:4]:
            path = {"dataset": value, "tokenizer": value, "modules_to_not_convert": value, "quantize_config": value}
            yield f"llama quantized by {method.value} {value!r:.40}", {**LLAMA, "quantization_config": {**asked, **path}}
    yield "rwkv", {"model_type": "rwkv", "hidden_size": 64, "num_hidden_layers": 2}
    for kind in ("timm_backbone", "timm_wrapper", "encoder-decoder", "vision-encoder-decoder", "rag", "musicgen"):
        for value in ("evil/repository", str(outside)):
            part = {"model_type": "timm_wrapper", "architecture": value, "_name_or_path": value}
            yield (
                f"{kind} {value}",
                {
                    "model_type": kind,
                    "architecture": value,
                    "backbone": value,
                    "use_pretrained_backbone": True,
                    "encoder": part,
                    "decoder": part,
                    "question_encoder": part,
                    "generator": part,
                },
            )


def _backbone_keys(mapping: Any) -> Iterator[tuple[str, list[str]]]:
    import inspect

    for kind in sorted(mapping):
        with contextlib.suppress(Exception):  # some need packages that are not installed
            cls = mapping[kind]
            names = {*inspect.signature(cls.__init__).parameters, *(field.name for field in dataclasses.fields(cls))}
            if any("backbone" in name for name in names):
                keys = {"backbone", *(name for name in names if "backbone" in name and not name.startswith("use_"))}
                yield kind, sorted(keys - {"freeze_backbone"})


def configs(tally: Tally, *, quick: bool) -> None:
    """Check every config in a watched process. A case is lost if an act was let through."""
    with room("configs") as (target, outside), socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1000)
        listener.setblocking(False)  # noqa: FBT003
        _prepare(outside)
        base = target / "base"
        written(base / "config.json", {**LLAMA, "use_cache": False})
        cases = []
        for number, (name, config) in enumerate(itertools.chain(adapters(outside), models(outside))):
            adapter = "peft_type" in config
            file = "adapter_config.json" if adapter else "config.json"
            further = {"base_model_name_or_path": str(base)} if adapter else {}
            written(target / str(number) / file, {**config, **further})
            if quick and number % 12:
                continue
            cases.append((str(target / str(number)), name))
        for start in range(0, len(cases), _AT_ONCE):
            for (_, name), ended in zip(
                cases[start : start + _AT_ONCE], _watched(cases[start : start + _AT_ONCE], target, listener), strict=True
            ):
                tally.slowest = max(tally.slowest, ended["seconds"])
                tally.case(name, *_problems(ended, target.parent / "canary", listener))


def _prepare(outside: Path) -> None:
    (outside / "evil.bin").write_bytes(pickle.dumps(Payload()))
    (outside / "payload.py").write_text(PAYLOAD)
    weights(outside / "evil.safetensors")
    written(outside / "adapter_config.json", {**ADAPTER, "base_model_name_or_path": "x"})


def _problems(ended: dict[str, Any], canary: Path, listener: socket.socket) -> list[str]:
    found = [f"let through: {act}" for act in ended["acts"]]
    if ended["code"] not in (0, 1, 2) or (ended["code"] == 2 and ended["err"].count("\n") != 1):
        found.append(f"ended with {ended['code']}: {ended['err'][-300:]}")
    if canary.exists():
        canary.unlink()
        found.append("code ran")
    with contextlib.suppress(BlockingIOError):
        listener.accept()[0].close()
        found.append("somebody was reached")
    return found


def _watched(cases: list[tuple[str, str]], target: Path, listener: socket.socket) -> list[dict[str, Any]]:
    """Return how the check of each folder ended, and the acts that were let through."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": f"http://127.0.0.1:{listener.getsockname()[1]}",
        "HF_HOME": str(target.parent / "outside" / "hf"),
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "CANARY": str(target.parent / "canary"),
        "PYTHONPATH": os.pathsep.join([str(target.parent / "outside"), str(ROOT), str(ROOT / "tests" / "support")]),
    }
    with tempfile.TemporaryFile("w+") as answers:
        command = [sys.executable, "-W", "ignore", "-m", __spec__.name, str(answers.fileno()), *(folder for folder, _ in cases)]
        ended = subprocess.run(
            command, env=environment, cwd=target, pass_fds=[answers.fileno()], capture_output=True, text=True, check=False
        )
        answers.seek(0)
        found = [json.loads(line) for line in answers]
    missing = {"code": None, "err": ended.stderr, "acts": [], "seconds": 0.0}
    return found + [missing] * (len(cases) - len(found))


def _watch(acts: list[str], allowed: tuple[str, ...]) -> Any:
    """Return an audit hook that records acts which no check of a config needs."""
    import sysconfig

    own = (*map(os.path.realpath, (*allowed, *sysconfig.get_paths().values(), *sys.path[1:])), "/proc/", "/sys/", "/dev/")
    ours = tuple(place for place in own if not place.endswith("/outside"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(
            ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.", "os.system", "os.exec")
        ) or event in (*("os.posix_spawn", "os.fork", "os.forkpty", "os.spawn", "pickle.find_class"),):
            acts.append(f"{event} {str(arguments)[:200]}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            place = os.path.realpath(os.fsdecode(arguments[0]))
            if not place.startswith(ours) or "/outside/" in place:
                acts.append(f"open {place} {arguments[1]}")
        elif event == "exec" and "/outside/" in getattr(arguments[0], "co_filename", ""):
            acts.append(f"code of {arguments[0].co_filename}")

    return hook


def _main() -> None:
    """Check the folders of the command line, and write how each check ended to a file descriptor."""
    import signal
    import time

    import peft
    import torch

    import kbitlint.cli.commands
    import kbitlint.jobs.preload

    torch.set_num_threads(1)
    with contextlib.suppress(ImportError):  # kbitlint before this module confined nothing
        from kbitlint.runtime import confinement

        confinement._install()  # noqa: SLF001  # first, so that the watcher sees only acts that it lets through
    acts: list[str] = []
    number, *folders = sys.argv[1:]
    room_of_it = str(Path(folders[0]).parent)
    sys.addaudithook(_watch(acts, (room_of_it, str(ROOT), str(Path(peft.__file__).parent))))

    def late(*_: object) -> None:
        raise TimeoutError("took too long")

    signal.signal(signal.SIGALRM, late)
    with open(int(number), "w") as answers:  # noqa: PTH123  # a descriptor
        for folder in folders:
            acts.clear()
            start, said, code = time.perf_counter(), io.StringIO(), None
            signal.alarm(SECONDS)
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                try:
                    kbitlint.cli.main(["check", folder, "--quantize", "nf4"], prog_name="kbitlint")
                except SystemExit as error:
                    code = error.code
                except BaseException as error:  # noqa: BLE001  # any exception is a finding
                    said.write(f"{error!r}\n")
            signal.alarm(0)
            found = {
                "code": code,
                "err": said.getvalue(),
                "acts": list(dict.fromkeys(acts)),
                "seconds": time.perf_counter() - start,
            }
            answers.write(json.dumps(found) + "\n")
            answers.flush()


if __name__ == "__main__":
    _main()
