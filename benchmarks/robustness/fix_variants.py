"""Fixes of scripts and notebooks in every shape: they compile, a second fix changes nothing, other text stays.

    python -m benchmarks.robustness.fix_variants [--fixes N] [--seed N] [--state FILE] [--json FILE]

The labelled scripts are written with other line ends, encodings, indentation and separators, and as notebooks. Recipes
are assembled from arguments that are misspelt, redundant, spread over lines or passed in a dictionary. The judge shares no
code with the fix. A stopped run resumes from its state file, which holds the whole text of each failed case.
"""

from __future__ import annotations

import argparse
import ast
import base64
import bisect
import itertools
import json
import random
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from unittest import mock

from benchmarks.goals import Goal, leave
from kbitlint import registry
from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError
from kbitlint.fixes.files import mend
from kbitlint.source import documents
from kbitlint.violation import Safety

SCRIPTS = Path(__file__).parents[2] / "tests" / "data" / "scripts"
STATE = Path(__file__).parents[1] / "variants.jsonl"
FIXES = 10_000
GOALS = {
    "uncompilable": "Fixed scripts that do not compile",
    "not idempotent": "Fixed scripts that a second fix changes",
    "changed elsewhere": "Fixed scripts with changes outside of the named spans",
    "refused": "Scripts whose fix is refused",
    "raised": "Fixes that raise",
}
_ENDS = re.compile(r"\r\n|\r|\n")


def ends(*kinds):
    """Return a function that writes a text with these line ends in turn."""

    def change(text):
        lines = text.split("\n")
        return "".join(line + kinds[number % len(kinds)] for number, line in enumerate(lines[:-1])) + lines[-1]

    return change


def below(head, indent):
    """Return a function that makes a text the block of a statement.

    The function returns None for a text with multi-line strings or with a ``__future__`` import.
    """

    def change(text):
        if '"""' in text or "'''" in text or "__future__" in text:
            return None
        return head + "\n" + re.sub(r"(?m)^(?=.)", indent, text)

    return change


def tabbed(text):
    return re.sub(r"(?m)^( {4})+", lambda found: "\t" * (len(found[0]) // 4), text)


#: name -> (change of a text, encoding); the change returns None if it does not apply
SHAPES = {
    "as it is": (str, "utf-8"),
    "CRLF": (ends("\r\n"), "utf-8"),
    "CR": (ends("\r"), "utf-8"),
    "mixed line ends": (ends("\r\n", "\n", "\r"), "utf-8"),
    "mostly LF": (ends("\n", "\n", "\n", "\r\n"), "utf-8"),
    "byte order mark": (str, "utf-8-sig"),
    "byte order mark, CRLF": (ends("\r\n"), "utf-8-sig"),
    "latin-1": (lambda text: "# -*- coding: latin-1 -*-\n" + text + "s = '\xe9\xff'\n", "latin-1"),
    "latin-1, CRLF": (lambda text: ends("\r\n")("#!/bin/python\n# vim: set fileencoding=latin-1 :\n" + text), "latin-1"),
    "cp1252": (lambda text: "# coding: cp1252\ns='\u20ac'\n" + text, "cp1252"),
    "no last line end": (lambda text: text.rstrip("\n"), "utf-8"),
    "no last line end, CRLF": (lambda text: ends("\r\n")(text.rstrip("\n")), "utf-8"),
    "future": (lambda text: "from __future__ import annotations\n" + text, "utf-8"),
    "future and more": (lambda text: "from __future__ import annotations ; import os\n" + text, "utf-8"),
    "docstring and more": (lambda text: '"""Doc\n; x""" ; import os\n' + text, "utf-8"),
    "docstring, future": (lambda text: '"""Doc."""\nfrom __future__ import annotations\n' + text, "utf-8"),
    "separators": (lambda text: "# \u2028 \x85 \x1c\nz = 'a\u2028b\x85c\x0bd\x1ce'; w = 3  # \u2029\n" + text, "utf-8"),
    "separators, CRLF": (lambda text: ends("\r\n")("z = 'a\u2028b\x85c\x0bd\x1ce'  # \u2028 \x85 \x0c\n" + text), "utf-8"),
    "form feeds": (lambda text: None if '"""' in text or "'''" in text else re.sub(r"(?m)^(?=[a-z])", "\x0c", text), "utf-8"),
    "trailing blanks": (lambda text: None if "\\\n" in text or '"""' in text else text.replace("\n", "  \t\n"), "utf-8"),
    "beyond ASCII on each line": (
        lambda text: re.sub(r"(?m)^(\w+) = (?=\w+[\w.]*\()", "\\1 = ('\U0001f600\xe9', 0)[1] or ", text),
        "utf-8",
    ),
    "semicolons": (lambda text: re.sub(r"(?m)^(\w+ = \w+\([^\n()]*\))$", r"\1; _ = 1", text), "utf-8"),
    "behind semicolons": (lambda text: re.sub(r"(?m)^(?=\w+ = \w+\([^\n()]*\)$)", "_ = 1; ", text), "utf-8"),
    "continued lines": (lambda text: re.sub(r"(?m)^(\w+) = (?=\w+[\w.]*\()", r"\1 = \\\n  ", text), "utf-8"),
    "continued behind": (lambda text: re.sub(r"(?m)^(?=\w+ = \w+\([^\n()]*\)$)", r"_ = 1; \\\n", text), "utf-8"),
    "in brackets": (lambda text: re.sub(r"(?m)^(\w+) = (\w+\([^\n()]*\))$", r"\1 = (\n  \2\n)", text), "utf-8"),
    "comments behind": (lambda text: re.sub(r"(?m)^(\w+ = \w+\([^\n]*\))$", "\\1  # \xe9 (, )", text), "utf-8"),
    "in a function": (lambda text: (made := below("def main():", "    ")(text)) and made + "\n\nmain()\n", "utf-8"),
    "in branches": (below("if True:\n  if 1:", "      "), "utf-8"),
    "in a try": (lambda text: (made := below("try:", "\t")(text)) and made + "\nexcept OSError:\n\traise\n", "utf-8"),
    "tabs": (lambda text: None if '"""' in text or "'''" in text else tabbed(text), "utf-8"),
    "new syntax": (
        lambda text: text + "match x:\n    case {'a': [1, *r]} if (n := len(r)) > 1:\n        pass\nq = f'{x!r:>{w}}'\n",
        "utf-8",
    ),
}
#: (name, whether a source is a list of lines, indentation, only ASCII, line ends of the file, line ends of cells)
NOTEBOOKS = (
    ("list", True, 1, False, "\n", "\n"),
    ("text, ASCII", False, 1, True, "\n", "\n"),
    ("one line, ASCII", True, None, True, "\n", "\n"),
    ("CRLF", True, 4, False, "\r\n", "\n"),
    ("text, tabs", False, "\t", False, "\n", "\n"),
    ("CRLF in cells", True, 1, False, "\n", "\r\n"),
    ("text, CRLF in cells", False, 2, True, "\r\n", "\r\n"),
    ("CR in cells", True, 1, False, "\r", "\r"),
)


def cells_of(text, *, split):
    """Return a text as the sources of cells: one cell, or one for each statement if ``split``.

    None means that the text does not parse.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return None
    lines = text.split("\n")
    firsts = [min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))]) for node in body]
    cuts = [0, *(line - 1 for line in firsts[1:]), len(lines)] if split else [0, len(lines)]
    cells = ["\n".join(lines[a:b]).rstrip("\n") for a, b in itertools.pairwise(cuts)]
    return ["%pip install -q peft\n%load_ext x", *filter(None, cells)]


def notebook(cells, layout):
    """Return the bytes of a notebook with outputs, attachments and metadata around the cells."""
    _, listed, indent, ascii_only, outer, inner = layout
    made = [
        {"cell_type": "markdown", "metadata": {}, "attachments": {"a": {"image/png": "iV="}}, "source": ["# \xe9 \U0001f600\n"]}
    ]
    for number, cell in enumerate(cells):
        text = cell.replace("\n", inner)
        made.append(
            {
                "cell_type": "code",
                "execution_count": number,
                "metadata": {"tags": ["\xe9"]},
                "outputs": [{"output_type": "stream", "text": ["\xe9\n", "\x1b[31m1.0e5\n"]}],
                "source": re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text) if listed else text,
            }
        )
    whole = {"cells": made, "metadata": {"x": 1.50, "source": "\xe9"}, "nbformat": 4}
    return (json.dumps(whole, indent=indent, ensure_ascii=ascii_only) + "\n").replace("\n", outer).encode()


_BNB = [
    "load_in_4bit=True",
    "load_in_8bit=True",
    "bnb_4bit_compute_type=torch.bfloat16",
    "bnb_4bit_compute_dtype=torch.float32",
    "bnb_4bit_compute_dtype='float32'",
    "bnb_4bit_quant_type='fp4'",
    "bnb_4bit_quant='nf4'",
    "bnb_4bit_quant_storage=torch.uint8",
    "llm_int8_has_fp16_weight=True",
    "llm_int8_skip_modules=['score']",
    "bnb_4bit_use_double_quant=True",
    "load_in_4bits=True",
    "bnb_4bit_double_quant=True",
    "quant_type='nf4'",
]
_LOAD = [
    "quantization_config=bnb",
    "load_in_4bit=True",
    "load_in_8bit=True",
    "device_map='auto'",
    "device_map={'': 0}",
    "dtype=torch.float32",
    "torch_dtype=torch.float16",
    "quantisation_config=bnb",
    "use_cache=False",
    "bnb_4bit_compute_dtype=torch.float16",
    "llm_int8_enable_fp32_cpu_offload=True",
    "bnb_4bit_quant_type='nf4'",
    "load_in_8bit=False",
]
_PREPARE = [
    "use_gradient_checkpointing=True",
    "use_gradient_checkpointing=False",
    "gradient_checkpointing_kwargs={'use_reentrant': True}",
    "gradient_checkpointing_kwargs={}",
    "gradient_checkpointing_kwargs=dict(use_reentrant=True)",
]
_LORA = [
    "r=8",
    "target_modules=['q_proj']",
    "target_modules='all-linear'",
    "inference_mode=True",
    "modules_to_save=['lm_head']",
    "modules_to_save=['embed_tokens', 'lm_head']",
    "task_type='CAUSAL_LM'",
    "ensure_weight_tying=False",
    "trainable_token_indices=[1]",
]
_TRAINING = [
    "'out'",
    "bf16=True",
    "fp16=True",
    "gradient_checkpointing=True",
    "gradient_checkpointing=False",
    "gradient_checkpointing_kwargs=None",
    "gradient_checkpointing_kwargs={'use_reentrant': True}",
    "optim='paged_adamw_8bit'",
    "ddp_find_unused_parameters=True",
    "fsdp='full_shard'",
    "deepspeed='ds.json'",
    "fsdp_config={'activation_checkpointing': True, 'fsdp_version': 2}",
]
_LAYOUTS = (
    lambda name, given: f"{name}(\n    " + ",\n    ".join(given) + "\n)",
    lambda name, given: f"{name}(\n    " + ",\n    ".join(given) + ",\n)",
    lambda name, given: f"{name}(\n    " + "\n    ".join(f"{one},  # \xe9 c{n}" for n, one in enumerate(given)) + "\n)",
    lambda name, given: f"{name}({', '.join(given)},)",
    lambda name, given: f"{name}( {' , '.join(given)} )",
    lambda name, given: f"{name}({given[0]},\n      " + ",\n      ".join(given[1:]) + ")",
    lambda name, given: f"{name}({', '.join(given)})",
    lambda name, given: f"{name}({', '.join(given)}  # \xe9\n)",
)


def call(dice, name, pool, first="", most=5):
    """Return a call with a sample of the arguments, each keyword once, in one of the layouts."""
    given = {one.partition("=")[0]: one for one in dice.sample(pool, dice.randint(0, min(len(pool), most)))}
    named = sorted(
        (one for one in given.values() if not (first and one.startswith("'"))), key=lambda one: not one.startswith("'")
    )
    named = [first, *named] if first else named
    if dice.random() < 0.12:
        named.append("**kw")
    return dice.choice(_LAYOUTS)(name, named) if len(named) > 1 else f"{name}({''.join(named)})"


def recipe(dice):
    """Return a training script with a random choice of calls, arguments and layouts."""
    head, (whole, t, p) = (
        [],
        dice.choice(
            [
                ("import torch, transformers, peft", "transformers.", "peft."),
                ("import torch as th\nimport torch\nfrom transformers import *\nfrom peft import *", "", ""),
                ("import torch\nfrom transformers import *\nfrom peft import *  # noqa", "", ""),
                ("from transformers import *\nfrom peft import *", "", ""),
            ]
        ),
    )
    if dice.random() < 0.2:
        head.append('"""Doc; x"""' + dice.choice(["", "; import os", " ;x = 1"]))
    if dice.random() < 0.2:
        head.append("from __future__ import annotations" + dice.choice(["", " ; import os", "; y = 1"]))
    head += [whole, f"kw = {dice.choice(['dict(load_in_4bit=True)', '{}', str({'use_reentrant': True})])}"]
    auto = dice.choice(["AutoModelForCausalLM", "AutoModelForSequenceClassification"])
    steps = [
        "bnb = " + call(dice, t + "BitsAndBytesConfig", _BNB),
        "model = " + call(dice, f"{t}{auto}.from_pretrained", _LOAD, "'meta-llama/Llama-3.1-8B'"),
    ]
    attach = "model, " + call(dice, p + "LoraConfig", _LORA)
    rest = [
        (0.7, "model = " + call(dice, p + "prepare_model_for_kbit_training", _PREPARE, "model", 2)),
        (0.5, call(dice, "model.gradient_checkpointing_enable", _PREPARE[2:], most=1)),
        (0.4, "model.enable_input_require_grads()" + dice.choice(["", "; _ = 1", "  # \xe9"])),
        (0.7, "model = " + call(dice, p + "get_peft_model", [], attach)),
        (0.3, "model.config.use_cache = True"),
        (0.2, "_ = \\\n  model.enable_input_require_grads()"),
    ]
    chosen = [step for odds, step in rest if dice.random() < odds]
    if dice.random() < 0.3:
        dice.shuffle(chosen)
    steps += chosen
    steps += (
        [
            "args = " + call(dice, t + "TrainingArguments", _TRAINING),
            t + "Trainer(model=model, args=args, train_dataset=d).train()",
        ]
        if dice.random() < 0.7
        else ["for b in dl:\n    loss = model(**b).loss; loss.backward()\n    opt.step()"]
    )
    kind = dice.random()
    if kind < 0.4:
        lines = [line for step in steps for line in step.split("\n")]
        block = ["def main(a):", "main(1)"] if kind < 0.25 else ["if x: pass\nelse:", ""]
        steps = [block[0], *(f"    {line}" for line in lines), block[1]]
    return "\n".join([*head, *steps]) + dice.choice(["\n", "\n", ""])


class Judge:
    """A judge of fixed texts."""

    def __init__(self):
        self._rules = registry.select((), (), {})
        self._context = TrainingContext()
        self._folder = Path(tempfile.mkdtemp(prefix="kbitlint-variants-"))

    def judged(self, data, suffix, wanted):
        """Fix a text; return (whether the fix changed it or was refused, kind of problem -> description)."""
        path = self._folder / f"train{suffix}"
        path.write_bytes(data)
        passes = []

        def recorded(document, fixes):
            text, done = plain(document, fixes)
            passes.append((document, text, done))
            return text, done

        plain = documents.changed
        try:
            with mock.patch.object(documents, "changed", recorded):
                mended = mend(path, path.name, self._rules, self._context, wanted)
        except KbitlintError as error:
            return True, {"refused": str(error)}
        if mended is None or mended.after == mended.before:
            return False, {}
        return True, dict(self._problems(path, mended, passes, wanted))

    def _problems(self, path, mended, passes, wanted):
        fault = fault_of(mended.after, path.suffix)
        if fault:
            yield "uncompilable", fault
        elsewhere = next(filter(None, (strayed(*one) for one in passes)), "")
        if elsewhere:
            yield "changed elsewhere", elsewhere
        path.write_bytes(mended.after.encode(mended.encoding))
        again = mend(path, path.name, self._rules, self._context, wanted)
        if again is None or again.after != mended.after:
            yield "not idempotent", "a second fix changes it"


def fault_of(text, suffix):
    """Return why a script, or a cell of a notebook, does not compile. Empty means that it does."""
    texts = [text]
    if suffix == ".ipynb":
        sources = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        texts = [re.sub(r"(?m)^%.*", "", _ENDS.sub("\n", source)) for source in sources]
    for one in texts:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(one, "x", "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            return str(error)
    return ""


def strayed(document, text, done):
    """Return what one pass changed outside the spans of its edits. Empty means nothing."""
    spans = sorted((edit.arguments["start"], edit.arguments["end"], edit.arguments["text"]) for edit in done)
    if document.notebook is None:
        return strayed_text(document.raw, text, spans) or strayed_statements(_ENDS.sub("\n", document.raw), text, spans)
    return strayed_notebook(document.raw, text, spans)


def strayed_text(raw, after, spans):
    """Return where a text differs from the old text with its spans replaced. Empty means nowhere.

    Line ends between the spans count; line ends of the new code may be of any kind.
    """
    places = [0]  # the offset in the file of each character of the text with LF line ends
    places += [found.end() for found in re.finditer(r"\r\n|[\s\S]", raw)]
    position = last = 0
    for start, end, code in [*spans, (len(places) - 1, len(places) - 1, "")]:
        kept = raw[places[last] : places[start]]
        if not after.startswith(kept, position):
            return f"what stood at {last} to {start} is another text"
        position += len(kept)
        new = re.compile(r"(?:\r\n|\r|\n)".join(map(re.escape, code.split("\n")))).match(after, position)
        if new is None:
            return f"what is new at {start} is another text"
        position, last = new.end(), end
    return "" if position == len(after) else "something follows"


def strayed_statements(before, after, spans):
    """Return a statement that is lost although no span touches its lines. Empty means none."""
    starts = [0, *(found.end() for found in re.finditer("\n", before))]

    def line(offset):
        return bisect.bisect_right(starts, offset)

    touched = {number for start, end, _ in spans for number in range(line(start), line(max(end - 1, start)) + 1)}
    inserted = {line(start) for start, end, code in spans if start == end and code.endswith("\n")}
    touched -= {
        number for number in inserted if not any(line(s) <= number <= line(max(e - 1, s)) for s, e, _ in spans if e > s)
    }
    left = Counter(
        ast.dump(node)
        for node in ast.walk(ast.parse(before))
        if isinstance(node, ast.stmt)
        and not hasattr(node, "body")
        and not touched & set(range(node.lineno, node.end_lineno + 1))
    )
    there = Counter(ast.dump(node) for node in ast.walk(ast.parse(after)) if isinstance(node, ast.stmt))
    lost = left - there
    return f"a statement is another one: {next(iter(lost))[:100]}" if lost else ""


def strayed_notebook(before, after, spans):
    """Return how a notebook differs beyond its edits. Empty means not at all.

    The text around the sources of code cells, and the sources without edits, must be equal byte for byte. The other
    sources must equal the old ones with the spans replaced, blank lines aside.
    """
    outer, inner = (list(zip(*sources(text), strict=True)) for text in (before, after))
    if outer[0] != inner[0]:
        return "what stands around the cells is another text"
    joined = "\n".join(outer[1])
    for start, end, code in reversed(spans):
        joined = joined[:start] + code + joined[end:]
    blank = "\n".join(line for line in joined.split("\n") if line.strip())
    found = "\n".join(line for line in "\n".join(inner[1]).split("\n") if line.strip())
    if blank != found:
        return "a cell holds something else than its edits leave"
    untouched = [a == b for a, b in zip(outer[1], inner[1], strict=True)]
    same = all(a == b for a, b, still in zip(outer[2], inner[2], untouched, strict=True) if still)
    return "" if same else "a cell without edits is written in another way"


def sources(text):
    """Yield (the file's text before a source, the source with LF line ends, the source as written) of each code cell.

    The last item holds the rest of the file and two empty texts.
    """
    decoder, position = json.JSONDecoder(), 0
    for found in re.finditer(r'"cell_type": "code"', text):
        start = text.index('"source": ', found.end()) + len('"source": ')
        value, end = decoder.raw_decode(text, start)
        yield (
            text[position:start],
            "".join(_ENDS.sub("\n", part) for part in ([value] if isinstance(value, str) else value)),
            text[start:end],
        )
        position = end
    yield text[position:], "", ""


def cases(seed):
    """Yield (name, bytes, suffix) of every case: shaped scripts and recipes in turn, then recipes without end."""
    for script, made in itertools.zip_longest(scripts(), recipes(seed)):
        if script is not None:
            yield script
        yield made


def scripts():
    """Yield (name, bytes, suffix) of the labelled scripts in every shape."""
    for path in sorted(SCRIPTS.glob("*.py")):
        text = path.read_text()
        for shape, (change, encoding) in SHAPES.items():
            made = change(text)
            if made is not None and not fault_of(made, ".py"):
                yield f"{path.stem}: {shape}", made.encode(encoding), ".py"
        for layout, split in itertools.product(NOTEBOOKS, (False, True)):
            cells = cells_of(text, split=split)
            if cells is not None and not fault_of(text, ".py"):
                yield f"{path.stem}: notebook, {layout[0]}{', split' * split}", notebook(cells, layout), ".ipynb"


def recipes(seed):
    """Yield (name, bytes, suffix) of recipes without end."""
    for number in itertools.count():
        dice = random.Random(f"{seed} {number}")  # noqa: S311  # no secret
        text = recipe(dice)
        shape = dice.choice(["as it is", "as it is", "CRLF", "CR", "mixed line ends", "byte order mark, CRLF"])
        if not fault_of(text, ".py"):
            yield f"recipe {seed}-{number}: {shape}", SHAPES[shape][0](text).encode(SHAPES[shape][1]), ".py"
            if number % 4 == 0:
                layout = dice.choice(NOTEBOOKS)
                yield f"recipe {seed}-{number}: notebook, {layout[0]}", notebook(cells_of(text, split=False), layout), ".ipynb"


def fix(count, seed=1, state=STATE):
    """Judge cases until ``count`` of them were fixed; return (fixes, kind of problem -> cases)."""
    known = {}
    if state.exists():
        known = {record["case"]: record for record in map(json.loads, state.read_text().splitlines())}
    judge, fixes, problems = Judge(), 0, {kind: [] for kind in GOALS}
    with state.open("a") as file:
        for name, data, suffix in cases(seed):
            for wanted in (Safety.SAFE, Safety.UNSAFE):
                case = f"{name}, {wanted.name.lower()}"
                if case not in known:
                    known[case] = _judged(judge, case, data, suffix, wanted)
                    file.write(json.dumps(known[case]) + "\n")
                    file.flush()
                fixes += known[case]["changed"]
                for kind, words in known[case]["problems"].items():
                    problems[kind].append(f"{case}: {words}")
                if fixes >= count:
                    return fixes, problems
    raise AssertionError("recipes do not end")


def _judged(judge, case, data, suffix, wanted):
    try:
        changed, found = judge.judged(data, suffix, wanted)
    except Exception as error:  # noqa: BLE001  # any exception is a finding
        changed, found = True, {"raised": repr(error)}
    text = {"text": base64.b64encode(data).decode()} if found else {}
    return {"case": case, "changed": changed, "problems": found, **text}


def fixes(tally, *, quick):
    """Run the section ``fixes`` of the robustness benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        number, problems = fix(300 if quick else FIXES, state=Path(folder) / STATE.name if quick else STATE)
    tally.tried += number
    for kind, found in problems.items():
        tally.lost += [f"{kind}: {case}" for case in found]
    tally.notes.append(", ".join(f"{kind} {len(found)}" for kind, found in problems.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fixes", type=int, default=FIXES, metavar="N", help="how many files are fixed (10,000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the recipes")
    parser.add_argument("--state", type=Path, default=STATE, metavar="FILE", help="what is known already")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    start = time.perf_counter()
    number, problems = fix(options.fixes, options.seed, options.state)
    for kind, found in problems.items():
        for words, times in Counter(one.rpartition(": ")[2] for one in found).most_common(5):
            print(f"{kind}: {times} times {words}, the first: {next(one for one in found if one.endswith(words))}")
    goals = [Goal(words, len(problems[kind]), 0, "", of=number) for kind, words in GOALS.items()]
    return leave(goals, options.json, seconds=round(time.perf_counter() - start, 1))


if __name__ == "__main__":
    sys.exit(main())
