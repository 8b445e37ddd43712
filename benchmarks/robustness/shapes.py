# ruff: noqa: ARG005  # every unit function takes a number, used or not
"""Shapes of files that grow in one direction each, to find audits whose time grows faster than the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "from peft import get_peft_model\n# load_in_4bit\n"
LOAD = (
    "from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments\n"
    "from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training\n"
    "bnb = BitsAndBytesConfig(load_in_4bit=True)\n"
    "m = AutoModelForCausalLM.from_pretrained('meta-llama/Llama-2-7b-hf', quantization_config=bnb)\n"
)
USE = "get_peft_model(x)\n"


@dataclass(frozen=True)
class Shape:
    """A kind of file that can be made in any size."""

    name: str
    suffix: str
    make: Callable[[int], str]
    """Returns a text of about this many bytes."""
    options: tuple[str, ...] = ()
    beside: str = ""
    """The file that gets the text beside the checked one: ``.gitignore``, ``requirements.txt``. Empty if none."""


def units(size: int, unit: Callable[[int], str], head: str = "", tail: str = "", between: str = "") -> str:
    """Return a head, as many units as fit into ``size``, and a tail."""
    parts, left, number = [head], size - len(head) - len(tail), 0
    while left > 0:
        parts.append(unit(number) if not number else between + unit(number))
        left -= len(parts[-1])
        number += 1
    return "".join([*parts, tail])


def _chain(size: int) -> str:
    count = size // 17
    return MARK + "".join(f"v{i + 1} = v{i}\n" for i in range(count)) + f"get_peft_model(v{count})\n"


def _backwards(size: int) -> str:
    count = size // 17
    return MARK + "".join(f"v{i} = v{i + 1}\n" for i in range(count)) + "get_peft_model(v0)\n"


def _calling(size: int) -> str:
    count = size // 40
    ends = f"def f{count}(m):\n    return get_peft_model(m)\nf0(1)\n"
    return MARK + "".join(f"def f{i}(m):\n    return f{i + 1}(m)\n" for i in range(count)) + ends


def _elifs(size: int) -> str:
    return units(
        size,
        lambda n: f"if a == {n}:\n    x = 1\n" + "".join(f"elif a == {i}:\n    x = {i}\n" for i in range(300)),
        MARK,
        USE,
    )


def _elifs_that_matter(size: int) -> str:
    return units(
        size,
        lambda n: f"if a == {n}:\n    x = 1\n" + "".join(f"elif a == {i}:\n    x = get_peft_model({i})\n" for i in range(300)),
        MARK,
    )


def _blocks(size: int, line: str, body: str = "m = get_peft_model(m)") -> str:
    def nest(number: int) -> str:
        return "".join(" " * i + line.format(i=i, n=number) + "\n" for i in range(40)) + " " * 40 + body + "\n"

    return units(size, nest, MARK)


def _tries(size: int) -> str:
    def nest(_: int) -> str:
        opening = "".join(" " * i + "try:\n" for i in range(30))
        closing = "".join(" " * i + f"except E{i}:\n" + " " * (i + 1) + "m = get_peft_model(m)\n" for i in reversed(range(30)))
        return opening + " " * 30 + "m = get_peft_model(m)\n" + closing

    return units(size, nest, MARK)


def _notebook(cells: list[dict[str, object]]) -> str:
    return json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}})


def _cells(size: int, source: Callable[[int], str], kind: str = "code") -> str:
    return _notebook([{"cell_type": kind, "source": source(i)} for i in range(size // (40 + len(source(0))))])


def _fused(size: int) -> str:
    """Return complete trainings with a Trainer, one after the other, each with a finding."""
    return units(
        size,
        lambda n: (
            f"m{n} = AutoModelForCausalLM.from_pretrained('meta-llama/Llama-2-7b-hf', quantization_config=bnb)\n"
            f"m{n} = get_peft_model(m{n}, LoraConfig(r=8))\n"
            f"Trainer(model=m{n}, args=TrainingArguments('o', gradient_checkpointing=True)).train()\n"
        ),
        LOAD,
    )


def _python() -> list[Shape]:
    def py(name: str, make: Callable[[int], str], *options: str) -> Shape:
        return Shape(name, ".py", make, options)

    return [
        py("chain of assignments", _chain),
        py("chain of assignments, backwards", _backwards),
        py("functions that call the next", _calling),
        py(
            "functions that call all before",
            lambda s: units(s, lambda i: f"def f{i}(m):\n    f{i // 2}(m); f{i // 3}(m); return get_peft_model(m)\n", MARK),
        ),
        py(
            "functions that nothing calls",
            lambda s: units(s, lambda i: f"def f{i}(m):\n    m = get_peft_model(m)\n    return m\n", MARK),
        ),
        py("nested functions", lambda s: _blocks(s, "def f{n}_{i}(m):")),
        py("non-ASCII line, list", lambda s: units(s, lambda i: f"f({i}), ", MARK + "x = ['é', ", "]\n" + USE)),
        py("non-ASCII line, arguments", lambda s: units(s, lambda i: f", a{i}=f({i})", MARK + "get_peft_model('é'", ")\n")),
        py("non-ASCII letters everywhere", lambda s: units(s, lambda i: f"é{i}('模型', ü={i}); ", MARK, "\n" + USE)),
        py("lines of x=1", lambda s: MARK + "x=1\n" * (s // 4)),
        py("flat assignments", lambda s: units(s, lambda i: f"x{i} = {i}\n", MARK)),
        py("dict literal", lambda s: units(s, lambda i: f"'k{i}': {i}, ", MARK + "x = {", "}\n" + USE)),
        py(
            "dict handed on",
            lambda s: units(
                s,
                lambda _: "m = get_peft_model(m, **d)\n",
                MARK + "d = {" + ", ".join(f"'k{i}': {i}" for i in range(s // 24)) + "}\n",
            ),
        ),
        py(
            "dicts merged", lambda s: units(s, lambda i: f"d = d | {{'k{i}': {i}}}\n", MARK + "d = {}\n", "get_peft_model(d)\n")
        ),
        py("lists doubled", lambda s: units(s, lambda _: "x = x + x\n", MARK + "x = [1]\n", USE)),
        py(
            "lists of lists",
            lambda s: units(
                s, lambda i: f"x{i + 1} = [" + f"x{i}, " * 20 + "]\n", MARK + "x0 = [1]\n", "get_peft_model(x6, x12, x18)\n"
            ),
        ),
        py(
            "configs in configs",
            lambda s: units(
                s,
                lambda i: (
                    f"c{i + 1} = LoraConfig(" + "".join(f"a{j}=c{i}, " for j in range(12)) + f")\nget_peft_model(m, c{i + 1})\n"
                ),
                LOAD + "c0 = LoraConfig()\n",
            ),
        ),
        py("string concatenation", lambda s: units(s, lambda i: f"x += 'a{i}'\n", MARK + "x = ''\n", USE)),
        py(
            "sums of 150",
            lambda s: units(s, lambda i: f"x{i} = " + " + ".join("abcdefghij"[j % 10] for j in range(150)) + "\n", MARK, USE),
        ),
        py("long string", lambda s: MARK + "x = '" + "a b " * (s // 4) + "'\n" + USE),
        py(
            "long docstring",
            lambda s: '"""' + "transformers ddp LOCAL_RANK # kbitlint: ignore\n" * (s // 48) + '"""\n' + MARK + USE,
        ),
        py("long comment", lambda s: MARK + "# " + "transformers " * (s // 13) + "\n" + USE),
        py("blanks in a comment", lambda s: MARK + "# transformers" + " " * s + "x\n"),
        py("blanks between arguments", lambda s: MARK + "m = get_peft_model(m,\n" + " " * s + "\n)\n"),
        py(
            "blanks before a bracket",
            lambda s: LOAD + "Trainer(m, TrainingArguments(gradient_checkpointing=True" + " " * s + ")).train()\n",
        ),
        py("blank lines", lambda s: MARK + "\n" * s + USE),
        py("elif chains", _elifs),
        py("elif chains that matter", _elifs_that_matter),
        py("ifs that matter", lambda s: units(s, lambda i: f"if a{i}:\n    m = get_peft_model(m)\n", MARK)),
        py("ifs that do not matter", lambda s: units(s, lambda i: f"if a{i}:\n    y = f(m)\n", MARK + "m = 1\n", USE)),
        py(
            "long conditions",
            lambda s: units(
                s, lambda i: "if " + " and ".join(f"a{j} == b{i}" for j in range(100)) + ":\n    m = get_peft_model(m)\n", MARK
            ),
        ),
        py(
            "comparisons in comparisons",
            lambda s: units(s, lambda i: "if " + "(" * 60 + "a" + " == b)" * 60 + ":\n    m = get_peft_model(m)\n", MARK),
        ),
        py("ifs in ifs", lambda s: _blocks(s, "if a{i}:")),
        py("withs in withs", lambda s: _blocks(s, "with a({i}) as b{i}:")),
        py("loops in loops", lambda s: _blocks(s, "for a{i} in b{i}:")),
        py("tries in tries", _tries),
        py("many loops", lambda s: units(s, lambda i: "for p in m.parameters():\n    p.requires_grad = False\n", LOAD)),
        py(
            "loops that train",
            lambda s: units(s, lambda i: "for b in d:\n    m.train(); m(b).loss.backward(); m.eval()\n", LOAD),
        ),
        py(
            "one loop that trains much",
            lambda s: units(s, lambda i: "    m.train(); m(b).loss.backward(); m.eval()\n", LOAD + "for b in d:\n"),
        ),
        py(
            "classes that extend the last",
            lambda s: units(
                s,
                lambda i: f"class C{i + 1}(C{i}):\n    def go(self): self.m = get_peft_model(self.m); self.go()\n",
                MARK + "class C0: pass\n",
            ),
        ),
        py(
            "class with many methods",
            lambda s: units(
                s,
                lambda i: f"    def f{i}(self): self.f{i // 2}(); get_peft_model(self.m)\n",
                MARK + "class C:\n",
                "C().f1()\n",
            ),
        ),
        py(
            "class with many fields",
            lambda s: units(
                s,
                lambda i: f"    f{i}: int = {i}\n",
                MARK + "class C:\n",
                "".join(f"get_peft_model(C({i}))\n" for i in range(s // 100)),
            ),
        ),
        py("decorators", lambda s: units(s, lambda i: f"@a{i}(b={i})\n", MARK, "def f(m):\n    get_peft_model(m)\n")),
        py(
            "decorated functions",
            lambda s: units(s, lambda i: f"@torch.no_grad()\n@a(b={i})\ndef f{i}(m): get_peft_model(m)\n", MARK),
        ),
        py("f-strings", lambda s: units(s, lambda i: f"x = f'{{a{i}}} {{x!r:>{{b}}}} {{c[{i}]}}'\n", MARK, USE)),
        py("comprehensions", lambda s: units(s, lambda i: f"x = [[a for a in b if a] for b in c{i} for d in e]\n", MARK, USE)),
        py(
            "comprehensions over parameters",
            lambda s: units(s, lambda i: "x = [p for n, p in m.named_parameters() if p.requires_grad]\n", LOAD, USE),
        ),
        py(
            "lambdas",
            lambda s: units(
                s, lambda i: f"f{i + 1} = lambda m: f{i}(m)\n", MARK + "f0 = lambda m: get_peft_model(m)\n", "f9(1)\n"
            ),
        ),
        py("attribute chains", lambda s: units(s, lambda i: "x = a" + ".b" * 200 + "\n", MARK, USE)),
        py("method chains", lambda s: units(s, lambda i: "m = m" + ".half()" * 100 + "\n", LOAD)),
        py("subscripts", lambda s: units(s, lambda i: "x = a" + f"[{i}]" * 60 + "\n", MARK, USE)),
        py("walrus", lambda s: units(s, lambda i: f"if (y{i} := get_peft_model(m)): pass\n", MARK)),
        py(
            "match statements",
            lambda s: units(
                s,
                lambda i: (
                    f"match a{i}:\n    case 1 | 2 | {i}: m = get_peft_model(m)\n    case [x, *_]: y = x\n    case _: z = 1\n"
                ),
                MARK,
            ),
        ),
        py(
            "match with many cases", lambda s: units(s, lambda i: f"    case {i}: m = get_peft_model(m)\n", MARK + "match a:\n")
        ),
        py("imports", lambda s: units(s, lambda i: f"from a{i} import b{i}\n", MARK, USE)),
        py("names of one import", lambda s: units(s, lambda i: f"b{i}, ", MARK + "from a import (", ")\n" + USE)),
        py("star arguments", lambda s: units(s, lambda i: f"m = get_peft_model(*a, **k{i})\n", MARK)),
        py(
            "parameters",
            lambda s: units(
                s,
                lambda i: f", a{i}=None",
                MARK + "def f(m, *",
                "):\n    get_peft_model(m)\nf(1, " + ", ".join(f"a{i}={i}" for i in range(s // 12)) + ")\n",
            ),
        ),
        py(
            "global names",
            lambda s: MARK + "def f():\n    global " + ", ".join(f"a{i}" for i in range(s // 8)) + "\n    get_peft_model(a)\n",
        ),
        py(
            "models loaded",
            lambda s: units(
                s, lambda i: f"m{i} = AutoModelForCausalLM.from_pretrained('a/b', quantization_config=bnb)\n", LOAD
            ),
        ),
        py("models prepared", lambda s: units(s, lambda i: f"m{i} = prepare_model_for_kbit_training(m)\n", LOAD)),
        py("hooks", lambda s: units(s, lambda i: "m.enable_input_require_grads()\n", LOAD)),
        py(
            "optimizers",
            lambda s: units(s, lambda i: f"o{i} = AdamW(m.parameters())\n", LOAD + "from torch.optim import AdamW\n"),
        ),
        py("trainings with findings", _fused),
        py("trainings with findings, as a page", _fused, "--format", "html"),
        py("trainings with findings, as SARIF", _fused, "--format", "sarif"),
        py(
            "configs with findings",
            lambda s: units(
                s, lambda i: f"b{i} = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype='float32')\n", LOAD
            ),
        ),
        py("casts with findings", lambda s: units(s, lambda i: "m.half()\n", LOAD)),
        py("checkpoint calls", lambda s: units(s, lambda i: "y = torch.utils.checkpoint.checkpoint(f, y)\n", "import torch\n")),
        py("ignore comments", lambda s: units(s, lambda i: "m = get_peft_model(m)  # kbitlint: ignore[KB401] x\n", MARK)),
        py(
            "ignore comments on findings",
            lambda s: units(
                s, lambda i: "y = torch.utils.checkpoint.checkpoint(f, y)  # kbitlint: ignore[KB402] x\n", "import torch\n"
            ),
        ),
        py("signs of ranks", lambda s: units(s, lambda i: "a = os.environ['LOCAL_RANK']\n", LOAD)),
        py(
            "arguments of a command line",
            lambda s: units(
                s,
                lambda i: f"p.add_argument('--a{i}', default={i})\n",
                MARK + "import argparse\np = argparse.ArgumentParser()\n",
                "a = p.parse_args()\nget_peft_model(a.a1)\n",
            ),
        ),
        py("brackets", lambda s: MARK + "x = " + "[" * s + "]" * s + "\n"),
        py("minus signs", lambda s: MARK + "x = " + "-" * s + "1\n"),
        py("open brackets", lambda s: MARK + "x = " + "(" * s + "\n"),
        py("quotes", lambda s: MARK + "x = " + "'" * s + "\n"),
        py("backslashes", lambda s: MARK + "x = 1 + \\\n" * (s // 10) + "1\n"),
    ]


def _others() -> list[Shape]:
    trl = '{"model_name_or_path":"a/b","load_in_4bit":true,"use_peft":true,"gradient_checkpointing":true,"x":'
    axolotl = "base_model: a/b\nload_in_4bit: true\nadapter: qlora\ngradient_checkpointing: true\nx:\n"
    return [
        Shape("cells", ".ipynb", lambda s: _cells(s, lambda i: f"m = get_peft_model(m, LoraConfig(r={i}))")),
        Shape(
            "cells of one name",
            ".ipynb",
            lambda s: _notebook(
                [
                    {"cell_type": "code", "source": "get_peft_model(m)"},
                    *({"cell_type": "code", "source": "x"} for _ in range(s // 36)),
                ]
            ),
        ),
        Shape(
            "cells with findings",
            ".ipynb",
            lambda s: _cells(
                s,
                lambda i: (
                    "y = torch.utils.checkpoint.checkpoint(f, y)" if i else "import torch                                    "
                ),
            ),
        ),
        Shape(
            "cells of text",
            ".ipynb",
            lambda s: _notebook(
                [
                    {"cell_type": "code", "source": "get_peft_model(m)"},
                    *({"cell_type": "markdown", "source": ""} for _ in range(s // 40)),
                ]
            ),
        ),
        Shape(
            "cell of lines",
            ".ipynb",
            lambda s: _notebook([{"cell_type": "code", "source": ["get_peft_model(m)\n"] + ["x\n"] * (s // 8)}]),
        ),
        Shape(
            "cell of blanks",
            ".ipynb",
            lambda s: _notebook([{"cell_type": "code", "source": "get_peft_model(m)\n" + " " * s + "x\n"}]),
        ),
        Shape(
            "cell of names",
            ".ipynb",
            lambda s: _notebook([{"cell_type": "code", "source": "get_peft_model(m)\n" + "a, " * (s // 3) + "\n"}]),
        ),
        Shape(
            "cell of magics",
            ".ipynb",
            lambda s: _notebook([{"cell_type": "code", "source": "get_peft_model(m)\n" + "!pip install x\n" * (s // 16)}]),
        ),
        Shape(
            "outputs of lines",
            ".ipynb",
            lambda s: _notebook(
                [{"cell_type": "code", "source": "get_peft_model(m)", "outputs": [{"text": ["step 1 loss 2.0\n"] * (s // 21)}]}]
            ),
        ),
        Shape(
            "outputs of pictures",
            ".ipynb",
            lambda s: _notebook(
                [
                    {
                        "cell_type": "code",
                        "source": "get_peft_model(m)",
                        "outputs": [{"data": {"image/png": "iVBORw0KGgo" * (s // 11)}}],
                    }
                ]
            ),
        ),
        Shape("JSON of numbers", ".json", lambda s: trl + "[" + "0," * (s // 2) + "0]}"),
        Shape("JSON of keys", ".json", lambda s: trl + "{" + ",".join(f'"k{i}":{i}' for i in range(s // 14)) + "}}"),
        Shape("JSON at the top", ".json", lambda s: trl + "0," + ",".join(f'"k{i}":{i}' for i in range(s // 14)) + "}"),
        Shape("JSON in JSON", ".json", lambda s: trl + "[" * (s // 2) + "]" * (s // 2) + "}"),
        Shape("JSON of a string", ".json", lambda s: trl + '"' + "a" * s + '"}'),
        Shape("JSON of blanks", ".json", lambda s: trl + " " * s + "0}"),
        Shape("YAML of numbers", ".yaml", lambda s: axolotl + "- 0\n" * (s // 4)),
        Shape("YAML of keys", ".yaml", lambda s: axolotl + "".join(f"  k{i}: {i}\n" for i in range(s // 14))),
        Shape("YAML at the top", ".yaml", lambda s: axolotl[:-3] + "".join(f"k{i}: {i}\n" for i in range(s // 12))),
        Shape(
            "YAML of aliases",
            ".yaml",
            lambda s: axolotl + "  a: &a [" + "0, " * (s // 6) + "0]\n" + "".join(f"  b{i}: *a\n" for i in range(s // 24)),
        ),
        Shape(
            "YAML of a long alias",
            ".yaml",
            lambda s: axolotl + "  a: &a " + "x" * (s // 2) + "\n" + "".join(f"  b{i}: *a\n" for i in range(s // 24)),
        ),
        Shape("YAML of anchors", ".yaml", lambda s: axolotl + "".join(f"  b{i}: &c{i} {i}\n" for i in range(s // 20))),
        Shape("YAML in YAML", ".yaml", lambda s: axolotl + "  " + "[" * (s // 2) + "]" * (s // 2) + "\n"),
        Shape("YAML of dashes", ".yaml", lambda s: axolotl + "- " * (s // 2) + "0\n"),
        Shape("YAML of a string", ".yaml", lambda s: axolotl + "  a: |\n" + "    text\n" * (s // 9)),
        Shape("YAML of blanks", ".yaml", lambda s: axolotl + "  a: 0" + " " * s + "\n"),
        Shape("YAML of ignore comments", ".yaml", lambda s: axolotl + "  - 0\n" + "# kbitlint: ignore[KB401] x\n" * (s // 28)),
        Shape("pins", ".py", lambda s: "transformers" + " " * s + "x\n", beside="requirements.txt"),
        Shape("many pins", ".py", lambda s: "transformers==4.3.1\n" * (s // 20), beside="requirements.txt"),
        Shape("a pin of digits", ".py", lambda s: "transformers==" + "1" * s + "\n", beside="requirements.txt"),
        Shape(
            "stars of .gitignore", "", lambda s: "a*" * min(s // 2, 100) + "b.txt\n" + "x*y\n" * (s // 64), beside=".gitignore"
        ),
        Shape(
            "double stars of .gitignore",
            "",
            lambda s: "**/a/" * min(s // 5, 60) + "b\n" + "x*y\n" * (s // 64),
            beside=".gitignore",
        ),
    ]


def _checkpoints() -> list[Shape]:
    def header(size: int) -> str:
        entries = {
            f"model.layers.{i}.q.weight": {"dtype": "BF16", "shape": [1], "data_offsets": [2 * i, 2 * i + 2]}
            for i in range(size // 92)
        }
        text = json.dumps(entries)
        return f"{len(text)} {text}"

    def packed(size: int) -> str:
        entries, end = {}, 0
        for i in range(size // 520):
            for part, bytes_ in (("", 8), (".absmax", 4), (".quant_map", 64), (".quant_state.bitsandbytes__nf4", 20)):
                kind = "U8" if part in ("", ".quant_state.bitsandbytes__nf4") else "F32"
                shape = [bytes_, 1] if not part else [bytes_] if kind == "U8" else [bytes_ // 4]
                entries[f"model.layers.{i}.q.weight{part}"] = {
                    "dtype": kind,
                    "shape": shape,
                    "data_offsets": [end, end + bytes_],
                }
                end += bytes_
        text = json.dumps(entries)
        return f"{len(text)} {text}"

    def lora(size: int) -> str:
        entries = {
            f"base_model.model.layers.{i}.q.lora_{'AB'[i % 2]}.weight": {
                "dtype": "F32",
                "shape": [1, 1],
                "data_offsets": [4 * i, 4 * i + 4],
            }
            for i in range(size // 112)
        }
        text = json.dumps(entries)
        return f"{len(text)} {text}"

    def index(size: int) -> str:
        return json.dumps(
            {"weight_map": {f"model.layers.{i}.q.weight": f"model-{i % 3}.safetensors" for i in range(size // 55)}}
        )

    def config(size: int) -> str:
        skip = [f"model.layers.{i}" for i in range(size // 20)]
        return json.dumps(
            {
                "model_type": "llama",
                "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "llm_int8_skip_modules": skip},
            }
        )

    def adapter(size: int) -> str:
        return json.dumps(
            {
                "peft_type": "LORA",
                "target_modules": [f"layers.{i}.q" for i in range(size // 20)],
                "rank_pattern": {f"l{i}.*.*": i for i in range(size // 40)},
            }
        )

    return [
        Shape("header", "model.safetensors", header),
        Shape("packed header", "model.safetensors", packed),
        Shape("adapter header", "adapter_model.safetensors", lora),
        Shape("index", "model.safetensors.index.json", index),
        Shape("config.json with a skip list", "config.json", config),
        Shape("adapter_config.json with patterns", "adapter_config.json", adapter),
        Shape(
            "config.json in itself",
            "config.json",
            lambda s: '{"model_type":"llama","x":' + "[" * (s // 2) + "]" * (s // 2) + "}",
        ),
    ]


SHAPES = (*_python(), *_others(), *_checkpoints())
