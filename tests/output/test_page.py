"""The HTML page, read by a parser: its structure, and what it says of everything that a report can hold."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import tiny
import torch
from page_reports import HOSTILE, SHOWN, module, report, violation

import kbitlint
from kbitlint.memory_result import StateMemory, StepMemory
from kbitlint.output.html.page import render, render_memory
from kbitlint.output.html.tree import Child, tree_of
from kbitlint.registry import all_rules
from kbitlint.result import Applied, Crash, Failure, ModuleOutline, Plan, Probe, Skip, Suppressed
from kbitlint.step_plan import StepPlan
from kbitlint.step_report import MemoryReport
from kbitlint.violation import Edit, Fix, Location, Safety, Severity, Surface


def layers(count, odd=()):
    """A model of layers of which some have one trainable matrix."""
    found = [module("", "Model", 0, stored=()), module("layers", "ModuleList", 0, stored=())]
    for layer in range(count):
        found.append(module(f"layers.{layer}", "Layer", 0, stored=(), checkpoints="no"))
        found.append(module(f"layers.{layer}.proj", trainable=8 * (layer in odd)))
    return tuple(found)


# ------------------------------------------------------------------------------------------- reading without a browser

VOID = {"meta", "input", "link", "br", "img", "hr"}


class Page(HTMLParser):
    """The elements of a page; fails where it is not well formed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.stack, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not self.stack or self.stack[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, attribute):
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


def content_of(text, tag):
    return re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)


def data_of(text, number=0):
    return json.loads(re.search(rf'id="tree-{number}">(.*?)</script>', text, re.DOTALL)[1])


def checked(text):
    """What every page holds to: well formed, closed to the network, with names for whatever is used."""
    page = Page(text)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in page.all("a")]
    assert [link for link in links if link[:1] != "#" or link[1:] not in ids] == []
    assert {name for name in page.values("aria-labelledby") if name not in ids} == set()
    assert [name for name in ("src", "srcset", "style", "action", "data") if page.values(name)] == []
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "embed", "form", "base"} == set()
    assert all(attributes.get("scope") for attributes in page.all("th"))
    assert all(attributes.get("aria-label") for _, attributes in page.elements if attributes.get("role") in ("img", "region"))
    (policy,) = [attributes["content"] for attributes in page.all("meta") if "http-equiv" in attributes]
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = content_of(text, tag)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    text.encode("utf-8")
    return page


def test_layers_that_are_alike_are_one_row_and_those_that_are_not_stand_apart():
    tree = tree_of(layers(6, odd=(2,)), {"layers.4": [0], "layers.4.proj.weight": [1]}, [Severity.ERROR, Severity.INFO])

    stack = tree.nodes[tree.root.children[0].node]
    assert [(child.label, child.count) for child in stack.children] == [("0–1, 3, 5", 4), ("2", 1), ("4", 1)]
    plain, trained, found = (tree.nodes[child.node] for child in stack.children)
    assert (plain.modules, plain.numel, plain.trainable, plain.stored) == (2, 8, 0, (("bfloat16", 16),))
    assert (trained.trainable, trained.causes, trained.severities) == (8, (), ())
    assert (found.causes, found.severities) == ((0,), (("error", 1), ("info", 1)))
    assert tree.nodes[found.children[0].node].causes == (1,)
    assert (tree.root.modules, tree.root.numel, tree.root.trainable, tree.root.nbytes) == (14, 48, 8, 96)
    assert tree.root.checkpoints == (("no", 6),)
    assert len(tree.nodes) == 8  # three kinds of proj, three of layer, the list and the model


def test_a_place_that_is_no_module_belongs_to_the_nearest_one_above():
    outline = (module("", "Model", 0), module("a.b", "Inner"), module("a.b.007", "Odd"))

    tree = tree_of(outline, {"a.b.gone.weight": [0], "elsewhere": [1]}, [Severity.ERROR, Severity.INFO])

    assert (tree.root.causes, tree.root.children) == ((1,), (Child("a.b", (), 1, 1),))
    assert (tree.nodes[1].causes, tree.nodes[1].children) == ((0,), (Child("007", (), 1, 0),))


def test_a_page_of_everything_a_report_can_hold_is_well_formed_and_says_it():
    everything = report(
        summary="LlamaForCausalLM 8.0B",
        notes=("built on meta",),
        violations=(
            violation(),
            violation("layers.0.proj", Severity.ERROR, "KB999", fix=None, evidence={}),
            violation("layers.1.proj", Severity.INFO, "KB402", fix=Fix("by hand", Safety.DISPLAY)),
            violation("r", code="KB401", at=Location("r", "train.py", 3), fix=Fix("x", Safety.UNSAFE, (Edit("x"),))),
        ),
        suppressed=(Suppressed(violation("x"), "ignore-in", "frozen by design"),),
        skips=(Skip("KB202", Surface.MODEL, "no adapters"), Skip("", Surface.TRACE, "untraceable")),
        crashes=(Crash("KB501", Surface.MODEL, "ZeroDivisionError"),),
        planned=Plan(
            (Edit("freeze", "a.0"), Edit("freeze", "a.1")), (Edit("cast", "b"),), "--- a\n+++ b\n-old\n+new", "+worse"
        ),
        applied=Applied((Edit("freeze", "a"),), 2, probe=Probe("cpu", 1.0, 3, 3), lines_to_add=("import kbitlint",)),
        outline=layers(3),
        unmeasured="no training step may be run (--no-trace)",
    )

    text = render([everything], (Failure("gone", "gone: no such file"),), ["KB1: nothing"], rules=all_rules())

    words = checked(text).words
    for said in (
        "Incomplete: not everything could be audited",
        "1 error 2 warnings 1 info 4 causes",
        "KB501 crashed on model: ZeroDivisionError",
        "norm is bfloat16 KB101 low-precision-norm",
        "Means training may become unstable",
        "Fix keep it in float32 safe +8.2 kB",
        "train.py:3 r",
        "--fix would change",
        "Fixed with 1 edit in 2 passes",
        "To make it last, add to the factory import kbitlint",
        "training step on cpu: loss 1.0000, finite gradients for 3 of 3 trainable parameters",
        "Not measured: no training step may be run (--no-trace)",
        "no adapters KB202",
        "untraceable –",
        "frozen by design",
        "not audited: gone: no such file",
        "KB1: nothing",
        "8 modules with 24 parameters",
    ):
        assert said in words, said
    assert [node["c"] for node in data_of(text)["nodes"]][-1] == "Model"


def test_a_hostile_name_stays_text_everywhere():
    hostile = violation(
        HOSTILE,
        slug=HOSTILE,
        code="KB999",
        message=HOSTILE,
        evidence={HOSTILE: HOSTILE, "more": [HOSTILE]},
        fix=Fix(HOSTILE, Safety.DISPLAY),
    )
    outline = (module("", HOSTILE), module(HOSTILE, HOSTILE, checkpoints="no", stored=((HOSTILE, 16),)))
    named = report(
        target=HOSTILE,
        summary=HOSTILE,
        notes=(HOSTILE,),
        violations=(hostile,),
        suppressed=(Suppressed(hostile, "baseline", HOSTILE),),
        skips=(Skip("KB1", Surface.MODEL, HOSTILE),),
        crashes=(Crash("", Surface.MODEL, HOSTILE),),
        planned=Plan((Edit(HOSTILE, HOSTILE, {HOSTILE: HOSTILE}),), (), f"+{HOSTILE}"),
        applied=Applied((Edit(HOSTILE, HOSTILE),), 1, lines_to_add=(HOSTILE,)),
        outline=outline,
        unmeasured=HOSTILE,
    )

    text = render([named, named], (Failure(HOSTILE, HOSTILE),), [HOSTILE])

    page = checked(text)
    assert "<img" not in text
    assert page.words.count("{{ 7 * 7 }}") > 20
    assert not any(character in text for character in "\x00\x1b\u202e\u2028\ud800")
    node = data_of(text)["nodes"][-1]
    assert (node["c"], node["h"][0][0]) == (SHOWN, SHOWN)
    assert page.all("title") == [{}]


def test_the_same_report_gives_the_same_bytes():
    one = render([report(violations=(violation(),), outline=layers(3), trace_seconds=1.0)], rules=all_rules())

    assert one == render([report(violations=(violation(),), outline=layers(3), trace_seconds=2.0)], rules=all_rules())


@pytest.mark.parametrize(
    ("further", "verdict", "state"),
    [
        ({}, "Clean: ready to train", "clean"),
        ({"violations": (violation(severity=Severity.INFO),)}, "Ready to train", "clean"),
        ({"violations": (violation(),)}, "Needs attention", "warned"),
        ({"violations": (violation(severity=Severity.ERROR),)}, "Not ready to train", "failing"),
        ({"ran": (), "skips": (Skip("", Surface.SOURCE, "nothing"),)}, "Nothing to check", "clean"),
        ({"ran": ()}, "Incomplete: not everything could be audited", "failing"),
        (
            {"applied": Applied((), 1, probe=Probe("cpu", None, 0, 3, failure="NaN"))},
            "Not ready: the fix breaks training, and nothing was kept",
            "failing",
        ),
    ],
)
def test_the_verdict_is_that_of_the_exit_code(further, verdict, state):
    text = render([report(**further)])

    checked(text)
    assert re.search(r'<div class="verdict (\w+)">\s*<strong>(.*?)</strong>', text).groups() == (state, verdict)


def test_what_only_several_ranks_concern_is_listed_and_not_held_against_the_verdict():
    unstated = Skip("KB701", Surface.MODEL, "how ranks share it is not known", unstated=True)

    quiet, told = (
        checked(render([report(skips=skips)])).words
        for skips in ((unstated,), (unstated, Skip("KB202", Surface.MODEL, "none")))
    )

    assert "how ranks share it is not known KB701" in quiet
    assert ("Not everything was checked." in quiet, "Not everything was checked." in told) == (False, True)


def test_a_script_has_a_page_without_a_tree_and_without_memory(run, tmp_path):
    (tmp_path / "train.py").write_text(
        "from transformers import AutoModelForCausalLM, BitsAndBytesConfig\n"
        "model = AutoModelForCausalLM.from_pretrained('x', quantization_config=BitsAndBytesConfig(load_in_4bit=True))\n"
    )

    result = run("check", "train.py", "--format", "html", "--output-file", "page.html")

    page = checked((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert result.exit_code == 1
    assert page.all("noscript") == []
    assert "Memory of" not in page.words
    assert "train.py:2" in page.words


def test_only_the_page_imports_its_template_engine(tmp_path):
    (tmp_path / "train.py").write_text("x = 1\n")
    code = (
        "import sys\n"
        "from kbitlint.cli import main\n"
        "try: main(['check', 'train.py', '--format', sys.argv[1]])\n"
        "except SystemExit: sys.exit(int('jinja2' in sys.modules) + 2 * int('torch' in sys.modules))\n"
    )

    done = [
        subprocess.run([sys.executable, "-c", code, name], cwd=tmp_path, check=False).returncode for name in ("text", "html")
    ]

    assert done == [0, 1]


def test_a_target_that_cannot_be_audited_has_a_page_too(run, tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")

    result = run("check", "a.py", "gone.py", "--format", "html")

    page = checked(result.stdout)
    assert result.exit_code == 2
    assert "not audited: gone.py" in page.words


def test_memory_before_and_after_the_fix_is_bars_that_add_up_to_the_peak(run):
    result = run("check", str(tiny.checkpoint()), "--quantize", "nf4", "--format", "html")

    page = checked(result.stdout)
    bars = [attributes["aria-label"] for attributes in page.all("svg") if attributes.get("class") == "bar-line"]
    assert [re.match(r"(.*?): peak", bar)[1] for bar in bars] == ["as it is", "kbitlint's fix"] * 2
    assert "no checkpointing as the model is now" in page.words
    widths = [
        float(rect["width"].rstrip("%"))
        for rect in page.all("rect")
        if str(rect.get("class")).startswith("part-") and "x" in rect
    ]
    assert max(sum(widths[:5]), sum(widths[5:10])) == pytest.approx(100, abs=0.01)


def test_the_page_of_memory_shows_what_could_not_be_measured():
    step = StepMemory(50, 10, 400, "lm_head, backward")
    state = StateMemory("as it is", {"quantized weights": 100, "norms": 100}, 20, 40, {"no checkpointing": step})
    failed = StateMemory("PEFT's prepare", {}, 0, 0, {}, "it <refuses>")
    made = MemoryReport(
        "t", "Llama", (1, 16), StepPlan(), "bfloat16", (state, failed), ("with LoRA r=16 on q attached for this",)
    )

    text = render_memory(made)

    page = checked(text)
    loss = "loss over full logits, as transformers' Trainer (--loss fused: TRL's SFTTrainer)"
    assert f"1 × 16 tokens, adamw, bfloat16 autocast, {loss}, with LoRA r=16 on q attached for this." in page.words
    assert "PEFT's prepare : not measured: it <refuses>" in page.words
    parts = [(rect["class"], rect["x"], rect["width"]) for rect in page.all("rect") if "x" in rect]
    assert parts == [
        ("part-0", "0.0%", "25.0%"),
        ("part-1", "25.0%", "25.0%"),
        ("part-3", "50.0%", "10.0%"),
        ("part-4", "60.0%", "40.0%"),
    ]


def test_the_outline_is_what_the_model_is():
    model = tiny.with_lora(tiny.load(), target_modules=["q_proj"])

    found = {one.path: one for one in kbitlint.check(model, outline=True, trace=False).outline}

    q_proj = "model.layers.0.self_attn.q_proj"
    assert found[""].class_name == "LlamaForCausalLM"
    assert found[f"{q_proj}.base_layer"] == ModuleOutline(
        f"{q_proj}.base_layer", "Linear4bit", (64, 64), 4096, 0, (("nf4", 2048),)
    )
    assert found[f"{q_proj}.lora_A.default"] == ModuleOutline(
        f"{q_proj}.lora_A.default", "Linear", (4, 64), 256, 256, (("float32", 1024),), adapter=True
    )
    assert (found["model.layers.0"].checkpoints, found["model.norm"].norm) == ("no", True)
    assert sum(one.trainable for one in found.values()) == 2 * (4 * 64 + 64 * 4)
    assert kbitlint.check(model, trace=False).outline == ()


def test_a_head_outside_the_model_is_shown_and_the_wrappers_are_not():
    model = tiny.load()
    model.register_parameter("scale", torch.nn.Parameter(torch.ones(2)))
    wrapper = torch.nn.Module()
    wrapper.inner = model
    wrapper.value_head = torch.nn.Linear(64, 1)
    wrapper.register_parameter("own", torch.nn.Parameter(torch.ones(3)))

    found = {one.path: one for one in kbitlint.check(wrapper, outline=True, trace=False).outline}

    assert found[""].class_name == "LlamaForCausalLM"
    assert (found["value_head"].trainable, found["value_head"].adapter) == (65, True)
    assert "inner" not in found


@pytest.mark.parametrize(
    ("ways", "words"),
    [
        (("no", "no"), "off"),
        (("reentrant", "reentrant"), "reentrant"),
        (("no", "without reentry"), "without reentry on 1 of 2"),
        (("reentrant", "without reentry"), "reentrant, without reentry"),
    ],
)
def test_how_a_part_of_the_model_checkpoints_in_words(ways, words):
    outline = (module("", "Model"), *(module(f"layers.{number}", checkpoints=way) for number, way in enumerate(ways)))

    text = render([report(outline=outline)])

    assert data_of(text)["nodes"][-1]["k"] == words
