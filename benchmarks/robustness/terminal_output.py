"""Output of the command line: names with control characters, and reports of 10,000 violations."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import sys
import time
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from benchmarks.robustness.malicious_inputs import ADAPTER, LLAMA, ON_CPU, room, weights, written
from benchmarks.robustness.trials import Run, Tally, run
from kbitlint.output import formats

if TYPE_CHECKING:
    from pathlib import Path

#: control and invisible characters that file names and JSON can hold
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
    """Return a forbidden character of the output with its context, or None if there is none.

    ``painted`` allows kbitlint's own colours and progress lines.
    """
    if painted:  # our own colours, and the progress line that is erased
        text = re.sub(r"\x1b\[[\d;]*m|\r\x1b\[K", "", text).replace("\r\n", "\n")
        text = re.sub(r"\r(?=auditing|measuring|fixing)", "", text)
    found = _FORBIDDEN.search(text) or re.search("[\udc80-\udcff]", text)
    return (
        None if found is None else f"{found[0]!r} reached the terminal: {text[max(0, found.start() - 40) : found.end() + 10]!r}"
    )


def _named(target: Path, bad: str) -> list[tuple[str, ...]]:
    """Write the name into every place that takes one; return the command lines that read these places."""
    from benchmarks.robustness.interrupted_writes import RECIPE, SCRIPT

    file = bad.replace("/", "").replace("\0", "")
    (target / f"{file}.py").write_text(SCRIPT)
    (target / f"{file}.yaml").write_text(RECIPE)
    (target / f"{file}-broken.py").write_text("get_peft_model(\n# load_in_4bit")
    odd = {**LLAMA, "model_type": bad, "architectures": [bad], bad: bad}
    bits = {"quant_method": bad, "load_in_4bit": True, bad: bad, "bnb_4bit_compute_dtype": bad, "llm_int8_skip_modules": [bad]}
    written(target / "odd" / "config.json", odd)
    written(target / "bits" / "config.json", {**LLAMA, "quantization_config": bits})
    known = {**bits, "quant_method": "bitsandbytes", "bnb_4bit_compute_dtype": "float32", "load_in_8_bit": bad}
    written(target / "known" / "config.json", {**LLAMA, "quantization_config": known})
    weights(target / "known" / "model.safetensors", {f"{bad}.weight": ("U8", (8, 1)), f"model.{bad}": ("BF16", (4, 4))})
    written(target / "known" / "model.safetensors.index.json", {"weight_map": {bad: bad, "x": f"{bad}.safetensors"}})
    written(target / "adapter" / "adapter_config.json", {**ADAPTER, "base_model_name_or_path": bad, "target_modules": [bad]})
    written(
        target / "fits" / "adapter_config.json",
        {**ADAPTER, "base_model_name_or_path": "known", "target_modules": [bad, "q_proj"]},
    )
    written(target / "prepared" / "config.json", LLAMA)
    edit = {"kind": bad, "path": bad, "arguments": {bad: bad}}
    written(target / "prepared" / "kbitlint.json", {"format": 1, "edits": [edit]})
    written(
        target / "baseline.json", {"version": 1, "targets": {".": {"KB401": {bad: 3}, bad: {bad: 2}}, bad: {"KB1": {bad: bad}}}}
    )
    written(target / "known.json", {"version": 1, "targets": {".": {"KB401": {f"{file}.py": 3, "x" + bad: 7}}}})
    written(target / "launch.json", {"zero_optimization": {"stage": bad}, bad: bad})
    (target / "launch.yaml").write_text("distributed_type: " + json.dumps(bad) + "\n")
    (target / "f.py").write_text(_FACTORY.replace("TEXT", ascii(bad)))
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
        *(("check", ".", "--format", name) for name in formats.NAMES if name != "text"),
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
BAD = TEXT
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


def names(tally: Tally, *, quick: bool) -> None:
    """Run every command line in a pipe, and every fourth on a terminal, with each kind of name.

    The output may hold printable characters and line ends only.
    """
    for kind, bad in list(CONTROLS.items())[:: 4 if quick else 1]:
        with room("names") as (target, _):
            lines = _named(target, bad)
            for number, arguments in enumerate(lines):
                typed = [word.replace("\0", "") for word in arguments]
                ended = tally.took(run(typed, target))
                # --verbose prints tracebacks
                problem = None if "--verbose" in typed and ended.code in (1, 2) else ended.problem
                tally.case(f"{kind}: {ascii(' '.join(typed))[:100]}", problem, escaped(ended.out + ended.err))
                if number % 4 == 0:
                    shown = _on_terminal(typed, target)
                    tally.case(
                        f"{kind} on a terminal: {ascii(' '.join(typed))[:100]}", shown.problem, escaped(shown.out, painted=True)
                    )
            word = json.dumps(bad).replace("\\u2028", "\u2028")
            pattern = f"{{ rule = 'KB401', target = '.', path = {json.dumps('x' + bad)}, reason = {word} }}"
            (target / "pyproject.toml").write_text(
                f"[tool.kbitlint]\nignore-in = [{pattern}]\noptions = {{ KB101 = {{ {word} = 1 }} }}\n"
            )
            for arguments in (("check", "."), ("config",), ("check", "f.py:build", "--no-trace")):
                ended = tally.took(run(list(arguments), target))
                tally.case(f"{kind} in pyproject.toml: {' '.join(arguments)}", ended.problem, escaped(ended.out + ended.err))
    with room("surrogates") as (target, _):  # JSON can hold lone surrogates, and UTF-8 cannot
        for text in ("\\ud800", "\\udcff x", "a\\u0000b"):
            bits = f'{{"quant_method": "{text}", "load_in_4bit": true, "{text}": "{text}"}}'
            (target / "config.json").write_text(
                json.dumps(LLAMA)[:-1] + f', "{text}": "{text}", "quantization_config": {bits}}}'
            )
            for name in formats.NAMES:
                for place in (".", "config.json"):
                    ended = tally.took(run(["check", place, "--format", name], target))
                    tally.case(f"{text} as {name} of {place}", ended.problem, escaped(ended.out + ended.err))


def _on_terminal(arguments: list[str], folder: Path) -> Run:
    """Run a command line on a terminal of 80 columns, with colours and progress."""
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
        except BaseException:  # noqa: BLE001  # the trials look for tracebacks
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


_MANY = 10_000
_NORMS = """import torch, tiny
def build():
    model = tiny.load()
    for number in range(N):
        model.add_module(f"norm_{number}_of_many", torch.nn.LayerNorm(4, dtype=torch.bfloat16))
    return model
"""


def _valid(name: str, text: str) -> tuple[int, str | None]:
    """Return (the number of violations, or of lines or tags, in the report; its fault or None)."""
    try:
        if name == "json":
            import jsonschema

            from kbitlint.output.json import schema

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
    except Exception as error:  # noqa: BLE001  # any exception shows an invalid report
        return 0, f"is not valid: {type(error).__name__}: {str(error)[:200]}"


def many(tally: Tally, *, quick: bool) -> None:
    """Report 10,000 violations in every format, from scripts and from a model: valid, within 60 s and 32 MB."""
    with room("many") as (target, _):
        line = "model = prepare_model_for_kbit_training(model)\n"
        head = (
            "from peft import prepare_model_for_kbit_training\n"
            "from transformers import AutoModelForCausalLM, BitsAndBytesConfig\n"
            "config = BitsAndBytesConfig(load_in_4bit=True)\n"
        )
        one = 'AutoModelForCausalLM.from_pretrained("m", quantization_config=config, load_in_4bit=True).cuda().half()\n'
        (target / "scripts").mkdir()
        for number in range(20):
            (target / "scripts" / f"t{number}.py").write_text(head + one * 500 + line)
        (target / "f.py").write_text(_NORMS.replace("N)", f"{_MANY})"))
        for place in ("scripts",) if quick else ("scripts", "f.py:build"):
            for name in formats.NAMES:
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
