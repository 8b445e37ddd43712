"""Folders and files that run code, reach outside, or break a parser, by attack or by accident."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.robustness.trials import Tally, contents, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "dtype": "bfloat16",
}
ADAPTER = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
#: a file that an archive names by its absolute path, and that must never be created
_SLIPPED = Path(tempfile.gettempdir()) / "kbitlint-slipped"
PAYLOAD = "import pathlib, os; pathlib.Path(os.environ['CANARY']).touch()\n"
ON_CPU = ("--quantize", "nf4", "--device", "cpu")


class Payload:
    """An object whose pickle runs ``PAYLOAD`` when it is loaded."""

    def __reduce__(self) -> Any:
        return (exec, (PAYLOAD,))


@contextmanager
def room(prefix: str) -> Iterator[tuple[Path, Path]]:
    """Yield (the folder of the target, a folder of files that the target must not reach)."""
    root = Path(tempfile.mkdtemp(prefix=f"kbitlint-{prefix}-"))
    for name in ("target", "outside"):
        (root / name).mkdir()
    (root / "outside" / "config.json").write_text(json.dumps({**LLAMA, "quantization_config": {"load_in_4bit": True}}))
    (root / "outside" / "train.py").write_text("x = 1\n")
    (root / "outside" / "secret").write_text("what must not be shown: hunter2\n")
    try:
        yield root / "target", root / "outside"
    finally:
        shutil.rmtree(root, ignore_errors=True)


def written(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def weights(path: Path, tensors: dict[str, Any] | None = None) -> None:
    from tests.support.checkpoint_cases import floats, save

    save(path, tensors or floats("model.embed_tokens"))


def _auto_map(target: Path, _: Path) -> None:
    (target / "evil.py").write_text(PAYLOAD + "class Config: pass\nclass Model: pass\n")
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoModel": "evil.Model"}
    written(target / "config.json", {**LLAMA, "model_type": "evil", "auto_map": auto})


def _auto_map_of_a_known_type(target: Path, outside: Path) -> None:
    _auto_map(target, outside)
    config = json.loads((target / "config.json").read_text())
    written(target / "config.json", {**config, "model_type": "llama", "architectures": ["EvilForCausalLM"]})


def _auto_map_elsewhere(target: Path, outside: Path) -> None:
    (outside / "evil.py").write_text(PAYLOAD + "class Config: pass\n")
    written(target / "config.json", {**LLAMA, "model_type": "x", "auto_map": {"AutoConfig": f"{outside}--evil.Config"}})


def _architectures(*names: str) -> Callable[[Path, Path], None]:
    def make(target: Path, outside: Path) -> None:
        _auto_map_of_a_known_type(target, outside)
        config = json.loads((target / "config.json").read_text())
        written(target / "config.json", {**config, "architectures": list(names)})
        weights(target / "model.safetensors")

    return make


def _kernel(key: str) -> Callable[[Path, Path], None]:
    return lambda target, _: written(target / "config.json", {**LLAMA, key: "evil/attention"})


def _pickles(*names: str) -> Callable[[Path, Path], None]:
    def make(target: Path, _: Path) -> None:
        written(target / "config.json", LLAMA)
        for name in names:
            (target / name).write_bytes(pickle.dumps(Payload()))

    return make


def _zipped(names: tuple[str, ...], file: str) -> Callable[[Path, Path], None]:
    """Return a maker of a zip archive, torch's own format, with names that climb and a pickle that runs code."""

    def make(target: Path, _: Path) -> None:
        written(target / "config.json", LLAMA)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
            archive.writestr("archive/version", "3\n")
            for name in names:
                archive.writestr(name, "written where it must not be")
        (target / file).write_bytes(content.getvalue())

    return make


def _adapter(make: Callable[[Path, Path], None], **config: Any) -> Callable[[Path, Path], None]:
    """Return a maker of an adapter on a harmless base, with the files of another case."""

    def adapter(target: Path, outside: Path) -> None:
        from tests.support import tiny

        make(target, outside)
        (target / "config.json").unlink(missing_ok=True)
        written(target / "adapter_config.json", {**ADAPTER, "base_model_name_or_path": str(tiny.checkpoint()), **config})

    return adapter


def _index(*files: str) -> Callable[[Path, Path], None]:
    def make(target: Path, outside: Path) -> None:
        written(target / "config.json", LLAMA)
        weights(outside / "model.safetensors")
        weights(target / "model-1.safetensors")
        named = [file.replace("OUTSIDE", str(outside)) for file in files]
        mapped = {f"model.layers.{number}.weight": file for number, file in enumerate(named)}
        written(target / "model.safetensors.index.json", {"metadata": {}, "weight_map": mapped})

    return make


def _links(**names: str) -> Callable[[Path, Path], None]:
    def make(target: Path, outside: Path) -> None:
        written(
            target / "config.json", {**LLAMA, "quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}}
        )
        for name, place in names.items():
            file = target / name.replace("__", ".")
            file.unlink(missing_ok=True)
            file.symlink_to(place.replace("OUTSIDE", str(outside)))

    return make


def _fixable_link(target: Path, outside: Path) -> None:
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_compute_dtype": "float32"}
    written(outside / "config.json", {**LLAMA, "quantization_config": quantization})
    (target / "config.json").symlink_to(outside / "config.json")


def _script_links(target: Path, outside: Path) -> None:
    from benchmarks.robustness.interrupted_writes import SCRIPT

    (outside / "train.py").write_text(SCRIPT)
    (target / "train.py").symlink_to(outside / "train.py")
    (target / "own.py").write_text(SCRIPT)


def _prepared(**edit: Any) -> Callable[[Path, Path], None]:
    """Return a maker of a checkpoint whose kbitlint.json has this edit."""

    def make(target: Path, _: Path) -> None:
        from tests.support import tiny

        shutil.copytree(tiny.checkpoint(), target, dirs_exist_ok=True)
        written(target / "kbitlint.json", {"format": 1, "quantize": "nf4", "edits": [edit]})

    return make


def _dependent(target: Path, _: Path) -> None:
    """Make a checkpoint beside modules that Python would import if the folder were on its path."""
    from tests.support import tiny

    shutil.copytree(tiny.checkpoint(), target, dirs_exist_ok=True)
    for name in ("torch", "transformers", "sitecustomize", "json", "peft", "conftest", "setup", "kernels"):
        (target / f"{name}.py").write_text(PAYLOAD)


COMMANDS = (
    ("check", "."),
    ("check", "..//target", "--quantize", "nf4"),
    ("memory", "."),
    ("--fix", ".", *ON_CPU),
    ("--fix", ".", "--unsafe-fixes", *ON_CPU),
)
CODE: dict[str, Callable[[Path, Path], None]] = {
    "auto_map of an unknown type": _auto_map,
    "auto_map of a known type": _auto_map_of_a_known_type,
    "auto_map that leads elsewhere": _auto_map_elsewhere,
    "architectures that are auto classes": _architectures("AutoModelForCausalLM", "AutoModel"),
    "architectures that are functions": _architectures("pipeline", "logging", "__class__", "utils"),
    "attention from the Hub": _kernel("attn_implementation"),
    "attention from the Hub, in private": _kernel("_attn_implementation"),
    "attention from the Hub, within": _kernel("_attn_implementation_internal"),
    "experts from the Hub": _kernel("experts_implementation"),
    "a pickle as weights": _pickles("pytorch_model.bin"),
    "pickles under every name": _pickles("pytorch_model.bin", "model.pt", "model.pth", "training_args.bin", "tokenizer.pkl"),
    "a pickle called safetensors": _pickles("model.safetensors"),
    "a zip archive with names that climb": _zipped(("../../outside/slipped", str(_SLIPPED)), "pytorch_model.bin"),
    "such an archive called safetensors": _zipped(("../../outside/slipped",), "model.safetensors"),
    "a pickle as an adapter": _adapter(_pickles("adapter_model.bin")),
    "such an archive as an adapter": _adapter(_zipped(("../../outside/slipped",), "adapter_model.bin")),
    "such an archive as an adapter's safetensors": _adapter(_zipped(("../outside/slipped",), "adapter_model.safetensors")),
    "an adapter that names a library": _adapter(
        _pickles("adapter_model.bin"), auto_mapping={"base_model_class": "x", "parent_library": "evil"}
    ),
    "an index that climbs": _index("../outside/model.safetensors", "model-1.safetensors"),
    "an index with absolute paths": _index("OUTSIDE/model.safetensors"),
    "an index with names that are none": _index("a\0b", "", ".", "..", "x" * 5000, "\ud800", "/dev/zero", "~/x"),
    "a config that is a link": _links(config__json="OUTSIDE/config.json"),
    "a config to fix that is a link": _fixable_link,
    "weights that are a link": _links(model__safetensors="OUTSIDE/secret"),
    "a config that is a secret": _links(config__json="OUTSIDE/secret"),
    "a preparation that is a link": _links(kbitlint__json="OUTSIDE/secret"),
    "links in a circle": _links(config__json="model.safetensors", model__safetensors="config.json"),
    "scripts that are links": _script_links,
    "a preparation with an unknown edit": _prepared(kind="os.system", path="touch", arguments={"x": 1}),
    "a preparation that reaches into attributes": _prepared(
        kind="cast", path="__class__.__init__", arguments={"dtype": "float32"}
    ),
    "a preparation with a dtype that is code": _prepared(kind="cast", path="model.norm", arguments={"dtype": "hub.load"}),
    "modules beside the weights": _dependent,
}


def code(tally: Tally, *, quick: bool) -> None:
    """Try every case of ``CODE`` with every command.

    A canary shows whether code ran. A folder beside the target shows whether a file outside was changed or printed.
    """
    for name, make in CODE.items():
        for arguments in COMMANDS[-1:] if quick else COMMANDS:
            with room("code") as (target, outside):
                make(target, outside)
                before = contents(outside)
                ended = tally.took(run(list(arguments), target, environment={"CANARY": str(target.parent / "canary")}))
                after = contents(outside)
                beside = {path.name for path in target.parent.iterdir()} - {"target", "outside"}
                tally.case(
                    f"{name}: {' '.join(arguments)}",
                    ended.problem,
                    "code ran" if "canary" in beside else None,
                    f"written outside: {sorted(beside - {'canary'})}" if beside - {"canary"} else None,
                    None if after == before else f"changed outside: {[k for k in after if after.get(k) != before.get(k)]}",
                    "shows what a link leads to" if "hunter2" in ended.out + ended.err else None,
                    "slipped" if _SLIPPED.exists() else None,
                )


def _fifo(*names: str) -> Callable[[Path], None]:
    def make(target: Path) -> None:
        written(
            target / "config.json", {**LLAMA, "quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}}
        )
        (target / "train.py").write_text("x = 1\n")
        for name in names:
            (target / name).unlink(missing_ok=True)
            os.mkfifo(target / name)

    return make


def _devices(target: Path) -> None:
    for name, place in (
        ("config.json", "/dev/zero"),
        ("model.safetensors", "/dev/urandom"),
        ("train.py", "/dev/zero"),
        (".gitignore", "/dev/zero"),
    ):
        (target / name).symlink_to(place)


def _loops(target: Path) -> None:
    written(target / "config.json", LLAMA)
    (target / "model.safetensors").symlink_to("model.safetensors")
    (target / "sub").mkdir()
    (target / "sub" / "up").symlink_to("..")
    (target / "sub" / "round").symlink_to(target)


def _one(name: str, content: bytes, *further: tuple[str, bytes]) -> Callable[[Path], None]:
    def make(target: Path) -> None:
        for file, text in ((name, content), *further):
            (target / file).write_bytes(text)

    return make


def _long_header(length: int, size: int) -> Callable[[Path], None]:
    def make(target: Path) -> None:
        written(target / "config.json", LLAMA)
        with (target / "model.safetensors").open("wb") as file:
            file.write(length.to_bytes(8, "little") + b"{")
            file.truncate(size)

    return make


def _many_files(target: Path) -> None:
    for number in range(3000):
        (target / f"m{number}.py").write_text("from peft import get_peft_model\nget_peft_model(1, 2)\n")


def _deep_folders(target: Path) -> None:
    place = os.open(target, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("deeper", dir_fd=place)
        place, old = os.open("deeper", os.O_RDONLY, dir_fd=place), place
        os.close(old)
    os.close(place)


_MARK = b"# load_in_4bit get_peft_model PeftModel\n"
_DEEP = 100_000
INPUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipes under every name": (
        _fifo("model.safetensors", ".gitignore", "pyproject.toml", "requirements.txt", "kbitlint.json", "a.yaml", "n.ipynb"),
        ".",
    ),
    "a pipe as a config": (_fifo("config.json"), "."),
    "a pipe as a target": (_fifo("train.py"), "train.py"),
    "a pipe as .gitignore of scripts": (
        lambda target: ((target / "t.py").write_text("x = 1\n"), os.mkfifo(target / ".gitignore"))[0],
        ".",
    ),
    "a pipe as adapter weights": (
        lambda target: (
            written(target / "adapter_config.json", {**ADAPTER, "base_model_name_or_path": "../none"}),
            os.mkfifo(target / "adapter_model.safetensors"),
        )[0],
        ".",
    ),
    "devices under every name": (_devices, "."),
    "links in a circle": (_loops, "."),
    "a header of 2^63 bytes": (_long_header(2**63 - 1, 100), "."),
    "a header of 2^39 bytes in a file of 2^40": (_long_header(2**39, 2**40), "."),
    "a header of 15 MB of nothing": (_long_header(15_000_000, 15_000_008), "."),
    "deep JSON as a config": (_one("config.json", b"[" * _DEEP), "."),
    "deep JSON in a config": (
        _one("config.json", b'{"model_type": "llama", "x": ' + b'{"a":' * _DEEP + b"1" + b"}" * _DEEP + b"}"),
        ".",
    ),
    "a number of 10,000 digits": (_one("config.json", b'{"model_type": "llama", "hidden_size": ' + b"9" * 10_000 + b"}"), "."),
    "sizes that no machine holds": (
        _one("config.json", json.dumps({**LLAMA, "hidden_size": 2**40, "vocab_size": 2**40}).encode()),
        ".",
    ),
    "a billion layers": (_one("config.json", json.dumps({**LLAMA, "num_hidden_layers": 10**9}).encode()), "."),
    "sizes below zero": (_one("config.json", json.dumps({**LLAMA, "hidden_size": -64, "num_hidden_layers": -1}).encode()), "."),
    "NaN and Infinity": (_one("config.json", b'{"model_type": "llama", "rms_norm_eps": NaN, "hidden_size": Infinity}'), "."),
    "keys twice": (_one("config.json", b'{"model_type": "llama", "model_type": ["x"], "dtype": 3}'), "."),
    "deep Python": (_one("t.py", _MARK + b"x = " + b"(" * 5000 + b")" * 5000), "t.py"),
    "deep operators": (_one("t.py", _MARK + b"x = " + b"-" * _DEEP + b"1"), "t.py"),
    "a long chain": (_one("t.py", _MARK + b"x = a" + b".b()" * 20_000), "t.py"),
    "a long sum": (_one("t.py", _MARK + b"x = 1" + b"+1" * 50_000), "t.py"),
    "deep blocks": (_one("t.py", _MARK + b"".join(b" " * n + b"if x:\n" for n in range(150)) + b" " * 150 + b"pass"), "t.py"),
    "Python of one long line": (_one("t.py", _MARK + b"x = [" + b"1," * 1_000_000 + b"]"), "t.py"),
    "bytes that are no text": (_one("t.py", _MARK + bytes(range(256))), "t.py"),
    "an encoding that does not exist": (_one("t.py", b"# coding: nonsense\n" + _MARK), "t.py"),
    "an encoding that is a codec of bytes": (_one("t.py", b"# coding: zlib\n" + _MARK), "t.py"),
    "UTF-16": (_one("t.py", ("x = 1 # load_in_4bit PeftModel").encode("utf-16")), "t.py"),
    "deep YAML": (_one("t.yaml", b"load_in_4bit: true\nx: " + b"[" * 20_000), "t.yaml"),
    "YAML that makes objects": (
        _one("t.yaml", b"load_in_4bit: true\nx: !!python/object/apply:os.system ['touch canary']\n"),
        "t.yaml",
    ),
    "YAML that grows": (
        _one(
            "t.yaml",
            b"load_in_4bit: true\na: &a [x,x]\n"
            + b"".join(b"%c: &%c [*%c,*%c,*%c,*%c]\n" % (n + 1, n + 1, n, n, n, n) for n in range(97, 120)),
        ),
        "t.yaml",
    ),
    "a deep notebook": (_one("t.ipynb", b'{"cells": ' + b"[" * _DEEP), "t.ipynb"),
    "a notebook of nothing": (
        _one("t.ipynb", b'{"cells": [null, 3, {"cell_type": "code", "source": {"load_in_4bit": 1}}]}'),
        "t.ipynb",
    ),
    "an empty file of each kind": (_one("t.py", b"", ("t.yaml", b""), ("t.ipynb", b""), ("t.json", b""), ("u.yml", b"")), "."),
    "a deep pyproject": (_one("pyproject.toml", b"[tool.kbitlint]\nx = " + b"[" * _DEEP, ("t.py", b"x = 1\n")), "t.py"),
    "a pyproject whose tool is a number": (_one("pyproject.toml", b"tool = 3 # tool.kbitlint\n", ("t.py", b"x = 1\n")), "t.py"),
    "3,000 scripts": (_many_files, "."),
    "600 folders in each other": (_deep_folders, "."),
    "a name of 5,000 letters": (_one("t.py", b"x = 1\n"), "x" * 5000),
    "a name of many parts": (_one("t.py", b"x = 1\n"), "a/" * 3000),
}


def inputs(tally: Tally, *, quick: bool) -> None:
    """Check each input as a target, and pass bad files to each option that takes a file."""
    for name, (make, place) in INPUTS.items():
        with room("inputs") as (target, _):
            make(target)
            every = (
                ("check", place, "--diff", "--format", "json"),
                ("check", place),
                ("--fix", place, "--device", "cpu"),
            )
            for arguments in every[:1] if quick else every:
                ended = tally.took(run(list(arguments), target))
                tally.case(
                    f"{name}: {' '.join(arguments)[:80]}", ended.problem, "ran code" if (target / "canary").exists() else None
                )
    bad = {
        "folder": lambda path: path.mkdir(),
        "empty": lambda path: path.touch(),
        "deep": lambda path: path.write_text("[" * _DEEP),
        "bytes": lambda path: path.write_bytes(bytes(range(256))),
        "number": lambda path: path.write_text("9" * 10_000),
        "list": lambda path: path.write_text("[1, 2]"),
        "null": lambda path: path.write_text('{"version": 1, "targets": null, "distributed_type": null}'),
        "loop": lambda path: path.symlink_to(path.name),
        "missing": lambda _: None,
        "huge": lambda path: path.write_text(
            '{"version": 1, "targets": {' + ",".join(f'"{n}": {{}}' for n in range(200_000)) + "}}"
        ),
    }
    for option, suffix in (
        ("--baseline", ".json"),
        ("--training", ".json"),
        ("--training", ".yaml"),
        ("--output-file", ".txt"),
    ):
        for kind, make in bad.items():
            with room("options") as (target, _):
                (target / "t.py").write_text("x = 1\n")
                make(target / f"given{suffix}")
                ended = tally.took(run(["check", "t.py", option, f"given{suffix}"], target))
                tally.case(f"{option} {kind}{suffix}", ended.problem)
