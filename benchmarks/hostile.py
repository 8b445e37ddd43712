"""Folders, names, files and functions of people who mean harm, or of nobody in particular."""

from __future__ import annotations

import io
import json
import os
import pickle
import pty
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from trials import Run, Tally, alone, contents, run

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
PAYLOAD = "import pathlib, os; pathlib.Path(os.environ['CANARY']).touch()\n"
ON_CPU = ("--quantize", "nf4", "--device", "cpu")


class Payload:
    """What a pickle runs when it is loaded."""

    def __reduce__(self) -> Any:
        return (exec, (PAYLOAD,))


@contextmanager
def _room(prefix: str) -> Iterator[tuple[Path, Path]]:
    """(folder of the target, folder of files that are none of its business)."""
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


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _weights(path: Path, tensors: dict[str, Any] | None = None) -> None:
    from stored import floats, save

    save(path, tensors or floats("model.embed_tokens"))


# ------------------------------------------------------------------------------------------------- code that must not run


def _auto_map(target: Path, _: Path) -> None:
    (target / "evil.py").write_text(PAYLOAD + "class Config: pass\nclass Model: pass\n")
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoModel": "evil.Model"}
    _json(target / "config.json", {**LLAMA, "model_type": "evil", "auto_map": auto})


def _auto_map_of_a_known_type(target: Path, outside: Path) -> None:
    _auto_map(target, outside)
    config = json.loads((target / "config.json").read_text())
    _json(target / "config.json", {**config, "model_type": "llama", "architectures": ["EvilForCausalLM"]})


def _auto_map_elsewhere(target: Path, outside: Path) -> None:
    (outside / "evil.py").write_text(PAYLOAD + "class Config: pass\n")
    _json(target / "config.json", {**LLAMA, "model_type": "x", "auto_map": {"AutoConfig": f"{outside}--evil.Config"}})


def _architectures(*names: str) -> Callable[[Path, Path], None]:
    def make(target: Path, outside: Path) -> None:
        _auto_map_of_a_known_type(target, outside)
        config = json.loads((target / "config.json").read_text())
        _json(target / "config.json", {**config, "architectures": list(names)})
        _weights(target / "model.safetensors")

    return make


def _kernel(key: str) -> Callable[[Path, Path], None]:
    return lambda target, _: _json(target / "config.json", {**LLAMA, key: "evil/attention"})


def _pickles(*names: str) -> Callable[[Path, Path], None]:
    def make(target: Path, _: Path) -> None:
        _json(target / "config.json", LLAMA)
        for name in names:
            (target / name).write_bytes(pickle.dumps(Payload()))

    return make


def _zipped(names: tuple[str, ...], file: str) -> Callable[[Path, Path], None]:
    """torch's own format: a zip archive, here with names that climb and a pickle that runs."""

    def make(target: Path, _: Path) -> None:
        _json(target / "config.json", LLAMA)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
            archive.writestr("archive/version", "3\n")
            for name in names:
                archive.writestr(name, "written where it must not be")
        (target / file).write_bytes(content.getvalue())

    return make


def _adapter(make: Callable[[Path, Path], None], **config: Any) -> Callable[[Path, Path], None]:
    """An adapter on a harmless base, with the files of another case."""

    def adapter(target: Path, outside: Path) -> None:
        import tiny

        make(target, outside)
        (target / "config.json").unlink(missing_ok=True)
        _json(target / "adapter_config.json", {**ADAPTER, "base_model_name_or_path": str(tiny.checkpoint()), **config})

    return adapter


def _index(*files: str) -> Callable[[Path, Path], None]:
    def make(target: Path, outside: Path) -> None:
        _json(target / "config.json", LLAMA)
        _weights(outside / "model.safetensors")
        _weights(target / "model-1.safetensors")
        named = [file.replace("OUTSIDE", str(outside)) for file in files]
        weights = {f"model.layers.{number}.weight": file for number, file in enumerate(named)}
        _json(target / "model.safetensors.index.json", {"metadata": {}, "weight_map": weights})

    return make


def _links(**names: str) -> Callable[[Path, Path], None]:
    def make(target: Path, outside: Path) -> None:
        _json(target / "config.json", {**LLAMA, "quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}})
        for name, place in names.items():
            file = target / name.replace("__", ".")
            file.unlink(missing_ok=True)
            file.symlink_to(place.replace("OUTSIDE", str(outside)))

    return make


def _fixable_link(target: Path, outside: Path) -> None:
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_compute_dtype": "float32"}
    _json(outside / "config.json", {**LLAMA, "quantization_config": quantization})
    (target / "config.json").symlink_to(outside / "config.json")


def _script_links(target: Path, outside: Path) -> None:
    from writes import SCRIPT

    (outside / "train.py").write_text(SCRIPT)
    (target / "train.py").symlink_to(outside / "train.py")
    (target / "own.py").write_text(SCRIPT)


def _prepared(**edit: Any) -> Callable[[Path, Path], None]:
    """A kbitlint.json of somebody else."""

    def make(target: Path, _: Path) -> None:
        import tiny

        shutil.copytree(tiny.checkpoint(), target, dirs_exist_ok=True)
        _json(target / "kbitlint.json", {"format": 1, "quantize": "nf4", "edits": [edit]})

    return make


def _dependent(target: Path, _: Path) -> None:
    """Code that lies where Python would find it if the folder were on its path."""
    import tiny

    shutil.copytree(tiny.checkpoint(), target, dirs_exist_ok=True)
    for name in ("torch", "transformers", "sitecustomize", "json", "peft", "conftest", "setup", "kernels"):
        (target / f"{name}.py").write_text(PAYLOAD)


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
    "a zip archive with names that climb": _zipped(("../../outside/slipped", "/tmp/kbitlint-slipped"), "pytorch_model.bin"),
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


def code(tally: Tally) -> None:
    """A canary shows whether code ran, and a folder beside the target whether anything was reached."""
    for name, make in CODE.items():
        for arguments in (
            ("check", "."),
            ("check", "..//target", "--quantize", "nf4"),
            ("memory", "."),
            ("--fix", ".", *ON_CPU),
            ("--fix", ".", "--unsafe-fixes", *ON_CPU),
        ):
            with _room("code") as (target, outside):
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
                    None if not Path("/tmp/kbitlint-slipped").exists() else "slipped",  # noqa: S108  # what the archive names
                )


# ------------------------------------------------------------------------------------------------- files that are none


def _fifo(*names: str) -> Callable[[Path], None]:
    def make(target: Path) -> None:
        _json(target / "config.json", {**LLAMA, "quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}})
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
    _json(target / "config.json", LLAMA)
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
        _json(target / "config.json", LLAMA)
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
            _json(target / "adapter_config.json", {**ADAPTER, "base_model_name_or_path": "../none"}),
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


def inputs(tally: Tally) -> None:
    """Each is checked as a target, and each file that options take is tried as a pipe, a folder, a device and nonsense."""
    for name, (make, place) in INPUTS.items():
        with _room("inputs") as (target, _):
            make(target)
            for arguments in (
                ("check", place),
                ("--fix", place, "--device", "cpu"),
                ("check", place, "--diff", "--format", "json"),
            ):
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
            with _room("options") as (target, _):
                (target / "t.py").write_text("x = 1\n")
                make(target / f"given{suffix}")
                ended = tally.took(run(["check", "t.py", option, f"given{suffix}"], target))
                tally.case(f"{option} {kind}{suffix}", ended.problem)


# ------------------------------------------------------------------------------------------------- names on the terminal

#: title, cursor, colour, links, C1, bidi, line ends, bells, invisible letters; what file systems and JSON can hold
CONTROLS = {
    "title": "\x1b]0;owned\x07",
    "colour": "\x1b[31;5m",
    "clear": "\x1b[2J\x1b[H",
    "C1": "\x9b31m",
    "bidi": "\u202eabc\u202c\u2066x\u2069",
    "line ends": "a\nkbitlint: clean\r\u2028\u2029\x85\x0b\x0c",
    "bell": "\x07\x08\x7f",
    "invisible": "a\u200bb\u200dc\ufeffd\u00ad",
    "tags": "\U000e0041\U000e007f",
}
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


def escaped(text: str, *, painted: bool = False) -> str | None:
    """What reached the terminal that must not; None where nothing did."""
    if painted:  # our own: colours, and the line that is taken back
        text = re.sub(r"\x1b\[[\d;]*m|\r\x1b\[K", "", text).replace("\r\n", "\n")
        text = re.sub(r"\r(?=auditing|measuring|fixing)", "", text)
    found = _FORBIDDEN.search(text) or re.search("[\udc80-\udcff]", text)
    return (
        None if found is None else f"{found[0]!r} reached the terminal: {text[max(0, found.start() - 40) : found.end() + 10]!r}"
    )


def _named(target: Path, bad: str) -> list[tuple[str, ...]]:
    """Files with this name in every place that takes one; gives the command lines that meet it."""
    from writes import RECIPE, SCRIPT

    file = bad.replace("/", "").replace("\0", "")
    (target / f"{file}.py").write_text(SCRIPT)
    (target / f"{file}.yaml").write_text(RECIPE)
    (target / f"{file}-broken.py").write_text("get_peft_model(\n# load_in_4bit")
    odd = {**LLAMA, "model_type": bad, "architectures": [bad], bad: bad}
    bits = {"quant_method": bad, "load_in_4bit": True, bad: bad, "bnb_4bit_compute_dtype": bad, "llm_int8_skip_modules": [bad]}
    _json(target / "odd" / "config.json", odd)
    _json(target / "bits" / "config.json", {**LLAMA, "quantization_config": bits})
    known = {**bits, "quant_method": "bitsandbytes", "bnb_4bit_compute_dtype": "float32", "load_in_8_bit": bad}
    _json(target / "known" / "config.json", {**LLAMA, "quantization_config": known})
    _weights(target / "known" / "model.safetensors", {f"{bad}.weight": ("U8", (8, 1)), f"model.{bad}": ("BF16", (4, 4))})
    _json(target / "known" / "model.safetensors.index.json", {"weight_map": {bad: bad, "x": f"{bad}.safetensors"}})
    _json(target / "adapter" / "adapter_config.json", {**ADAPTER, "base_model_name_or_path": bad, "target_modules": [bad]})
    _json(
        target / "fits" / "adapter_config.json",
        {**ADAPTER, "base_model_name_or_path": "known", "target_modules": [bad, "q_proj"]},
    )
    _json(target / "prepared" / "config.json", LLAMA)
    edit = {"kind": bad, "path": bad, "arguments": {bad: bad}}
    _json(target / "prepared" / "kbitlint.json", {"format": 1, "edits": [edit]})
    _json(
        target / "baseline.json", {"version": 1, "targets": {".": {"KB401": {bad: 3}, bad: {bad: 2}}, bad: {"KB1": {bad: bad}}}}
    )
    _json(target / "known.json", {"version": 1, "targets": {".": {"KB401": {f"{file}.py": 3, "x" + bad: 7}}}})
    _json(target / "launch.json", {"zero_optimization": {"stage": bad}, bad: bad})
    (target / "launch.yaml").write_text("distributed_type: " + json.dumps(bad) + "\n")
    (target / "f.py").write_text(_FACTORY.replace("BAD", ascii(bad)))
    places = {"script": f"{file}.py", "broken": f"{file}-broken.py", "recipe": f"{file}.yaml"}
    checks = [
        ("check", place)
        for place in (
            *places.values(),
            "odd",
            "bits",
            "known",
            "adapter",
            "fits",
            "prepared",
            ".",
            file,
            f"{bad}:f",
            f"f.py:{file}",
        )
    ]
    return [
        *checks,
        *(("check", ".", "--format", name) for name in ("github", "junit", "json", "sarif")),
        ("check", "f.py:build", "--diff"),
        ("check", "f.py:build", "--verbose"),
        ("check", "f.py:build", "--format", "github"),
        ("check", "f.py:raises"),
        ("check", "f.py:raises", "--verbose"),
        ("check", "f.py:raises", "f.py:build", "--no-trace"),
        ("check", "f.py:leaves"),
        ("memory", "f.py:build"),
        ("memory", "known"),
        ("check", "known/config.json", "--diff"),
        ("--fix", "known", *ON_CPU),
        ("check", ".", "--diff"),
        ("--fix", f"{file}.py", "--unsafe-fixes"),
        ("check", ".", "--baseline", "baseline.json"),
        ("check", ".", "--baseline", "known.json"),
        ("check", ".", "--training", "launch.json"),
        ("check", ".", "--training", "launch.yaml"),
        ("check", ".", "--select", bad),
        ("check", ".", "--ignore", bad),
        ("check", ".", "--format", bad),
        ("check", ".", "--device", bad, "--fix"),
        ("check", ".", f"--{bad}"),
        ("check", ".", "--fail-on", bad),
        ("check", ".", "--jobs", bad),
        ("check", ".", "--target-memory", bad),
        ("check", ".", "--output-file", f"{bad}/x"),
        ("memory", ".", "--lora", bad),
        ("explain", bad),
        (bad,),
        (f"--{bad}",),
        ("check",),
        ("config",),
    ]


_FACTORY = """import torch, sys, tiny
BAD = BAD
def build():
    model = tiny.load()
    name = BAD.replace('.', '')
    for module in list(model.modules()):
        module.__class__ = type(module.__class__.__name__ + BAD.replace('\\0', ''), (module.__class__,), {})
    model.model.layers[0].add_module(name, torch.nn.LayerNorm(4, dtype=torch.bfloat16))
    model.add_module(name, torch.nn.LayerNorm(4, dtype=torch.bfloat16))
    model.register_parameter('p' + name, torch.nn.Parameter(torch.zeros(2)))
    model.config.name_or_path = BAD
    return model
def raises():
    raise RuntimeError('failed: ' + BAD + ' failed')
def leaves():
    sys.exit(BAD)
"""


def names(tally: Tally) -> None:
    """Into pipes and into a terminal: nothing but printable letters and line ends comes out, whatever a name holds."""
    for kind, bad in CONTROLS.items():
        with _room("names") as (target, _):
            lines = _named(target, bad)
            for number, arguments in enumerate(lines):
                typed = [word.replace("\0", "") for word in arguments]
                ended = tally.took(run(typed, target))
                tally.case(f"{kind}: {ascii(' '.join(typed))[:100]}", ended.problem, escaped(ended.out + ended.err))
                if number % 4 == 0:
                    shown = _on_terminal(typed, target)
                    tally.case(
                        f"{kind} on a terminal: {ascii(' '.join(typed))[:100]}", shown.problem, escaped(shown.out, painted=True)
                    )
            (target / "pyproject.toml").write_text(
                f"[tool.kbitlint]\nignore-in = [{{ rule = 'KB401', target = '.', path = {json.dumps('x' + bad)}, reason = {json.dumps(bad)} }}]\n"
                f"options = {{ KB101 = {{ {json.dumps(bad)} = 1 }} }}\n".replace("\\u2028", "\u2028")
            )
            for arguments in (("check", "."), ("config",), ("check", "f.py:build", "--no-trace")):
                ended = tally.took(run(list(arguments), target))
                tally.case(f"{kind} in pyproject.toml: {' '.join(arguments)}", ended.problem, escaped(ended.out + ended.err))
    with _room("surrogates") as (target, _):  # JSON may hold what no text may
        for text in ("\\ud800", "\\udcff x", "a\\u0000b"):
            (target / "config.json").write_text(
                json.dumps(LLAMA)[:-1]
                + f', "{text}": "{text}", "quantization_config": {{"quant_method": "{text}", "load_in_4bit": true, "{text}": "{text}"}}}}'
            )
            for name in ("text", "json", "sarif", "github", "junit", "html"):
                for place in (".", "config.json"):
                    ended = tally.took(run(["check", place, "--format", name], target))
                    tally.case(f"{text} as {name} of {place}", ended.problem, escaped(ended.out + ended.err))


def _on_terminal(arguments: list[str], folder: Path) -> Run:
    """The same on a terminal of 80 columns, with colours and progress."""
    start = time.perf_counter()
    sys.stdout.flush()
    child, terminal = pty.fork()
    if child == 0:
        code = 70
        try:
            os.chdir(folder)
            os.environ.update(HF_HUB_OFFLINE="1", COLUMNS="80", TERM="xterm")
            sys.stdin, sys.stdout, sys.stderr = (
                os.fdopen(number, mode, encoding="utf-8", errors=errors, closefd=False)
                for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
            )
            sys.path.insert(0, "")
            from kbitlint.cli import main

            main(arguments, prog_name="kbitlint")
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:  # noqa: BLE001  # what the trials look for
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    parts, hung = [], False
    while True:
        ready = select.select([terminal], [], [], 1.0)[0]
        if ready:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            parts.append(part)
        if time.perf_counter() - start > 60:
            hung = True
            os.kill(child, signal.SIGKILL)
            break
    status = os.waitpid(child, 0)[1]
    os.close(terminal)
    out = b"".join(parts).decode("utf-8", "surrogateescape")
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Run(code, out, out, time.perf_counter() - start, hung)


# ------------------------------------------------------------------------------------------------- 10,000 violations

_MANY = 10_000
_NORMS = """import torch, tiny
def build():
    model = tiny.load()
    for number in range(N):
        model.add_module(f"norm_{number}_of_many", torch.nn.LayerNorm(4, dtype=torch.bfloat16))
    return model
"""


def _valid(name: str, text: str) -> tuple[int, str | None]:
    """(violations that the report names, what is wrong with it)."""
    try:
        if name == "json":
            import jsonschema

            from kbitlint.report.json import schema

            document = json.loads(text)
            jsonschema.validate(document, schema())
            return sum(len(target["violations"]) for target in document["targets"]), None
        if name == "sarif":
            return sum(len(result["locations"]) for result in json.loads(text)["runs"][0]["results"]), None
        if name == "junit":
            return sum(int(suite.get("failures", "0")) for suite in ET.fromstring(text)), None  # noqa: S314  # our own report
        if name == "html":
            return text.count("<"), None if text.rstrip().endswith("</html>") else "does not end as a page"
        if name == "github":
            bad = [line for line in text.splitlines() if not line.startswith("::")]
            return len(text.splitlines()), f"a line that is no command: {bad[0][:80]!r}" if bad else None
        return len(text.splitlines()), None
    except Exception as error:  # noqa: BLE001  # an invalid report is what this looks for
        return 0, f"is not valid: {type(error).__name__}: {str(error)[:200]}"


def many(tally: Tally) -> None:
    """In every format, from scripts and from a model: valid, within 60 s and 32 MB."""
    with _room("many") as (target, _):
        line = "model = prepare_model_for_kbit_training(model)\n"
        head = (
            "from peft import prepare_model_for_kbit_training\nfrom transformers import AutoModelForCausalLM, BitsAndBytesConfig\n"
            "config = BitsAndBytesConfig(load_in_4bit=True)\n"
        )
        one = 'AutoModelForCausalLM.from_pretrained("m", quantization_config=config, load_in_4bit=True).cuda().half()\n'
        (target / "scripts").mkdir()
        for number in range(20):
            (target / "scripts" / f"t{number}.py").write_text(head + one * 500 + line)
        (target / "f.py").write_text(_NORMS.replace("N)", f"{_MANY})"))
        for place in ("scripts", "f.py:build"):
            for name in ("text", "json", "sarif", "github", "junit", "html"):
                ended = tally.took(run(["check", place, "--format", name, "--no-trace"], target, seconds=120))
                size = len(ended.out.encode("utf-8", "surrogateescape"))
                count, wrong = _valid(name, ended.out)
                if name == "json":
                    tally.notes.append(f"{place}: {count:,} violations")
                    wrong = wrong or (f"only {count} violations" if count < _MANY else None)
                tally.notes.append(f"{place} as {name}: {ended.seconds:.1f} s, {size / 1e6:.1f} MB")
                tally.case(
                    f"{place} as {name}",
                    ended.problem,
                    wrong,
                    f"took {ended.seconds:.0f} s" if ended.seconds > 60 else None,
                    f"is {size / 1e6:.0f} MB" if size > 32e6 else None,
                    None if ended.code == 1 else f"left with {ended.code}: {ended.err[-200:]}",
                )


# ------------------------------------------------------------------------------------------------- factories

FACTORIES = """
import atexit, ctypes, gc, multiprocessing, os, signal, subprocess, sys, threading, time
import tiny
READY = tiny.load()

def good():
    return READY
def prints():
    print("{"); os.write(1, b"[1, 2"); subprocess.run(["echo", "}"]); sys.stdout.write("x" * 100000); sys.__stdout__.flush()
    return READY
def prints_late():
    atexit.register(lambda: os.write(2, b"late\\n"))
    threading.Thread(target=lambda: [print("later", flush=True) or time.sleep(0.05) for _ in range(200)], daemon=True).start()
    return READY
def replaces_stdout():
    sys.stdout = open(os.devnull, "w"); sys.stdout.close(); sys.stderr = None
    return READY
def closes():
    os.close(1); os.close(0)
    return READY
def forks():
    if os.fork() == 0:
        print("child")
    return READY
def forks_and_raises():
    if os.fork() == 0:
        raise RuntimeError("in the child")
    return READY
def daemon_child():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True).start()
    return READY
def child():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
    return READY
def pool():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(abs, range(10))
    return READY
def detached():
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    return READY
def thread():
    threading.Thread(target=time.sleep, args=(600,)).start()
    return READY
def leaves(): sys.exit(0)
def leaves_with_text(): sys.exit("text")
def leaves_hard(): os._exit(0)
def recurses(): return recurses()
def recurses_deeply():
    sys.setrecursionlimit(10**9)
    return recurses()
def dies(): os.kill(os.getpid(), signal.SIGKILL)
def segfaults(): ctypes.string_at(0)
def aborts(): os.abort()
def interrupts(): os.kill(os.getpid(), signal.SIGINT); time.sleep(600)
def stops(): os.kill(os.getpid(), signal.SIGSTOP); time.sleep(600)
def ignores_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)
def hangs(): time.sleep(600)
def spins():
    while True: pass
def hangs_with_children():
    for _ in range(3):
        subprocess.Popen(["sleep", "601"])
    time.sleep(600)
def eats():
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1)) * 5_000_000); time.sleep(0.0005)
def children_eat():
    code = "import time; kept = bytearray(b'1') * 500_000_000; time.sleep(600)"
    for _ in range(4):
        subprocess.Popen([sys.executable, "-c", code])
    time.sleep(600)
def forks_on():
    while True:
        if os.fork() == 0:
            time.sleep(600)
        time.sleep(0.01)
def returns_none(): return None
def returns_itself(): return returns_itself
class Odd(Exception):
    def __str__(self): raise ValueError("no text")
def raises_odd(): raise Odd
def raises_group(): raise ExceptionGroup("many", [ValueError(1)]) if sys.version_info >= (3, 11) else ValueError
def raises_base(): raise BaseException("not an Exception")
def raises_generator_exit(): raise GeneratorExit
def memory_error(): raise MemoryError
def removes_folder():
    os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone"); return READY
def changes_folder():
    os.chdir("/"); return READY
def shadows():
    sys.modules.pop("kbitlint.api", None); sys.path.clear(); return READY
def breaks_json():
    import json; json.dumps = lambda *a, **k: "broken"; return READY
"""
#: what may end the process that it runs in, and so is tried in one of its own only
_ISOLATED = {
    "leaves_hard",
    "dies",
    "segfaults",
    "aborts",
    "stops",
    "hangs",
    "spins",
    "ignores_signals",
    "hangs_with_children",
    "eats",
    "children_eat",
    "forks_on",
    "recurses_deeply",
    "child",
    "thread",
    "breaks_json",
    "removes_folder",
    "interrupts",
    "raises_base",
    "raises_generator_exit",
}
_HANGING = {"hangs", "spins", "stops", "ignores_signals", "hangs_with_children", "forks_on"}


def _asleep() -> set[str]:
    """Processes that factories have started and that still run."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:1] == [b"sleep"] and words[1:2] in ([b"600"], [b"601"]) or b"500_000_000" in b" ".join(words):
            found.add(entry.name)
    return found


def factories(tally: Tally, *, quick: bool) -> None:
    """Each before one that is good, in one run with limits; those that leave their process alive in one process too."""
    every = [name for name in re.findall(r"^def (\w+)", FACTORIES, re.MULTILINE) if name != "good"]
    chosen = [name for name in every if not quick or name not in _HANGING or name in ("hangs", "forks_on")]
    with _room("factories") as (target, _):
        (target / "f.py").write_text(FACTORIES)
        asleep = _asleep()
        targets = [place for name in chosen for place in (f"f.py:{name}", "f.py:good")]
        limits = ("--jobs", "2", "--target-timeout", "25", "--target-memory", "1.5GB")
        ended = alone(["check", *targets, *limits, "--no-trace", "--format", "json"], target, seconds=25.0 * len(targets))
        tally.case(
            "all of them, each in its own process", ended.problem, None if ended.code == 2 else f"left with {ended.code}"
        )
        found = _document(ended)
        good = sum(entry["target"] == "f.py:good" for entry in found["targets"])
        tally.case("the good one after each", None if good == len(chosen) else f"reported {good} times of {len(chosen)}")
        said = {entry["target"]: entry["error"] for entry in found["failures"]}
        reported = {entry["target"] for entry in found["targets"]}
        for name in chosen:
            place, expected = f"f.py:{name}", _EXPECTED.get(name)
            wrong = expected and expected not in said.get(place, "")
            tally.case(
                f"{name}, in its own process",
                f"says {said.get(place)!r}" if wrong else None,
                None if place in said or place in reported else "is in neither list",
            )
        left = _asleep() - asleep
        tally.case("what all of them started", f"left {len(left)} processes" if left else None)
        for name in sorted(set(chosen) - _ISOLATED):
            ended = tally.took(run(["check", f"f.py:{name}", "f.py:good", "--no-trace", "--format", "json"], target))
            tally.case(f"{name}, in one process", ended.problem, *_reported(name, ended))
        for process in _asleep() - asleep:  # what is started in the command line's own process is the user's
            os.kill(int(process), signal.SIGKILL)


#: how a target fails, where it must
_EXPECTED = {
    **dict.fromkeys(("hangs", "spins", "stops", "ignores_signals", "hangs_with_children"), "--target-timeout"),
    "forks_on": "(--target-",
    **dict.fromkeys(("eats", "children_eat"), "--target-memory"),
    "leaves": "left the program with exit status 0",
    "leaves_hard": "ended with exit status 0 and no report",
    "dies": "was ended by SIGKILL",
    "segfaults": "was ended by SIGSEGV",
    "aborts": "was ended by SIGABRT",
    "recurses": "RecursionError",
    "memory_error": "MemoryError",
    "returns_none": "returned None",
}


def _document(ended: Run) -> dict[str, Any]:
    try:
        return dict(json.loads(ended.out))
    except (ValueError, TypeError):
        return {"targets": [], "failures": []}


def _reported(name: str, ended: Run) -> list[str | None]:
    """The output is one JSON document that holds the good target."""
    if ended.hung or name == "closes":
        return []
    try:
        targets = [target["target"] for target in json.loads(ended.out)["targets"]]
    except (ValueError, KeyError, TypeError):
        return [f"the output is not one report: {ended.out[:100]!r} {ended.err[-300:]!r}"]
    lost = None if "f.py:good" in targets else f"the good target is lost: {ended.err[-300:]!r}"
    return [lost, f"left with {ended.code}" if len(targets) < 2 and ended.code != 2 else None]
