"""The HTML page: its structure read by a parser, always; and the page itself used in headless Chromium."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import tiny
import torch
import transformers

import kbitlint
from kbitlint.memory_result import StateMemory, StepMemory
from kbitlint.model.build import meta
from kbitlint.output.html import origin
from kbitlint.output.html.page import render, render_memory
from kbitlint.output.html.tree import Child, tree_of
from kbitlint.registry import all_rules
from kbitlint.report import Report
from kbitlint.result import Applied, Crash, Failure, ModuleOutline, Plan, Probe, Skip, Suppressed
from kbitlint.step_plan import StepPlan
from kbitlint.step_report import MemoryReport
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}{% raw %}\u2028\u202e\x00\x1b[31m\ud800"
SHOWN = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}{% raw %}\\u2028\\u202e\\x00\\x1b[31m\\ud800"


def violation(path="model.norm", severity=Severity.WARNING, code="KB101", **further):
    return Violation(
        **{
            "code": code,
            "slug": "low-precision-norm",
            "severity": severity,
            "consequence": Consequence.UNSTABLE,
            "message": "norm is bfloat16",
            "at": Location(path),
            "surface": Surface.MODEL,
            "evidence": {"dtype": "bfloat16", "bytes": 8192},
            "fix": Fix("keep it in float32", Safety.SAFE, (Edit("float32-norm", path, adds_bytes=8192),)),
            **further,
        }
    )


def report(**further):
    return Report(**({"target": "train.py:build", "ran": (("KB101", Surface.MODEL),)} | further))


def module(path, name="Linear", numel=8, **further):
    return ModuleOutline(path, name, numel=numel, **({"stored": (("bfloat16", 2 * numel),)} | further))


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


@pytest.mark.slow
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


# ------------------------------------------------------------------------------------------------------ in a browser

LLAMA_3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def unfused(model):
    """DeepSeek-V3 as its own code has it: each of the 256 experts of a layer is three matrices."""
    config = model.config
    hidden, inner = config.hidden_size, config.moe_intermediate_size
    for layer in model.model.layers[config.first_k_dense_replace :]:
        experts = torch.nn.ModuleList()
        for _ in range(config.n_routed_experts):
            expert = torch.nn.Module()
            for name, shape in (("gate_proj", (hidden, inner)), ("up_proj", (hidden, inner)), ("down_proj", (inner, hidden))):
                expert.add_module(name, torch.nn.Linear(*shape, bias=False, device="meta", dtype=torch.bfloat16))
            experts.append(expert)
        layer.mlp.experts = experts
    return model


def built(config, change=lambda model: model):
    cls = getattr(transformers, type(config).__name__.replace("Config", "ForCausalLM"))
    model = change(meta.instantiate(cls, config, None, torch.bfloat16))
    meta._quantize(model, tiny.quantization(), pre_quantized=False)
    return model


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """name -> a page of a model at its real number of modules, without weights."""
    folder = tmp_path_factory.mktemp("pages")
    llama = built(transformers.LlamaConfig(**LLAMA_3_8B))
    deepseek = built(transformers.DeepseekV3Config(), unfused)
    for layer in (7, 9):  # two layers of 61 are unlike the others, for one of their 256 experts
        deepseek.model.layers[layer].mlp.experts[200].up_proj.bias = torch.nn.Parameter(torch.empty(2048, device="meta"))
    made = {}
    for name, model in (("8B", llama), ("671B", deepseek)):
        audited = dataclasses.replace(kbitlint.check(model, outline=True, trace=False), target=f"{name}.py:build")
        made[name] = folder / f"{name}.html"
        made[name].write_text(render([audited], rules=all_rules()), encoding="utf-8")
    adapted = kbitlint.check(tiny.with_lora(tiny.load()), outline=True, trace=False)
    made["adapted"] = folder / "adapted.html"
    made["adapted"].write_text(render([adapted], rules=all_rules()), encoding="utf-8")
    hostile = report(
        target=HOSTILE, violations=(violation(HOSTILE, message=HOSTILE),), outline=(module("", HOSTILE), module(HOSTILE))
    )
    made["hostile"] = folder / "hostile.html"
    made["hostile"].write_text(render([hostile]), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no Chromium is installed: none of {', '.join(BROWSERS)} is on the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, pages):
    """Opens a page; afterwards nothing may have been logged, thrown or asked of the network."""
    contexts, wrong = [], []

    def opened(name, width=1280, scheme="light", **further):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **further)
        contexts.append(context)
        page = context.new_page()
        address = pages[name].as_uri()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: None if request.url == address else wrong.append(request.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def rows(page):
    """(level, label, whether it is open) of every row."""
    return page.eval_on_selector_all(
        "[role=treeitem]",
        """rows => rows.map(row => {
            const label = row.querySelector('.label') ?? row;
            return [+row.ariaLevel, label.textContent, row.ariaExpanded];
        })""",
    )


def focused(page):
    return page.evaluate("document.activeElement.querySelector('.label')?.textContent ?? document.activeElement.id")


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = rgba(getComputedStyle(element).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const low = new Set();
  let seen = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    const text = walk.currentNode.data.trim();
    if (!text || !element.checkVisibility() || ['SCRIPT', 'STYLE'].includes(element.tagName)) continue;
    seen++;
    const pair = [light(rgba(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) low.add(`${element.className} ${text.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return [seen, [...low]];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["8B", "671B"])
def test_all_text_can_be_read_in_both_schemes(visit, name, scheme):
    page = visit(name, scheme=scheme)

    seen, low = page.evaluate(CONTRAST)

    assert (low, seen > 100) == ([], True)
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(247, 247, 245)") == (scheme == "light")


@pytest.mark.parametrize("width", [400, 700, 1280])
@pytest.mark.parametrize("name", ["8B", "671B", "hostile"])
def test_nothing_is_wider_than_the_window(visit, name, width):
    page = visit(name, width)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = """width => [...document.querySelectorAll('main *')].filter(one => one.checkVisibility()
        && !one.closest('.scroll') && one.getBoundingClientRect().right > width + 0.5).map(one => one.className)"""
    assert page.evaluate(outside, width) == []


def test_a_hostile_model_is_shown_as_it_is_named(visit):
    page = visit("hostile")

    assert page.title() == f"{origin.project()}: {SHOWN} – kbitlint"
    assert [label for _, label, _ in rows(page)] == [SHOWN, SHOWN]
    assert page.locator("img").count() == 0


def test_8b_is_folded_to_a_screen_and_every_row_says_what_it_shows(visit):
    page = visit("8B")

    assert [label for _, label, _ in rows(page)] == [
        "LlamaForCausalLM",
        "model",
        "embed_tokens",
        "layers",
        "0–31",
        "self_attn",
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        "mlp",
        *("gate_proj", "up_proj", "down_proj"),
        "input_layernorm",
        "post_attention_layernorm",
        "norm",
        "lm_head",
    ]
    assert page.get_by_role("treeitem", name="0–31, LlamaDecoderLayer").get_attribute("aria-label") == (
        "0–31, LlamaDecoderLayer, 32 alike, nf4 >99% bf16 <1%, 218.1M parameters, 109.1 MB, <0.01% trainable, checkpointing off"
    )
    assert page.get_by_role("treeitem", name="q_proj").get_attribute("aria-label") == (
        "q_proj, Linear4bit, nf4, 16.8M parameters, 8.4 MB, frozen"
    )
    assert page.get_by_role("treeitem", name="lm_head").locator(".pill").all_text_contents() == ["KB201"]


def test_what_an_adapter_added_is_told_by_the_row_of_its_layer(visit):
    page = visit("adapted", 1100)

    assert "lora_A" not in [label for _, label, _ in rows(page)]
    row = page.get_by_role("treeitem", name="q_proj")
    assert "fp32 50% nf4 50%" in row.get_attribute("aria-label")
    assert "11% trainable" in row.get_attribute("aria-label")
    cut = "labels => labels.filter(label => label.scrollWidth > label.clientWidth).map(label => label.textContent)"
    assert page.eval_on_selector_all(".label", cut) == []
    row.click()
    labels = [label for _, label, _ in rows(page)]
    start = labels.index("q_proj")
    assert labels[start : start + 5] == ["q_proj", "base_layer", "lora_A", "lora_B", "k_proj"]


def test_the_tree_is_worked_with_the_keyboard_alone(visit):
    page = visit("8B")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.get_by_role("treeitem").first.focus()

    def press(*keys):
        for key in keys:
            page.keyboard.press(key)
        return focused(page)

    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "2px"
    assert press("ArrowDown") == "model"
    assert press("ArrowUp") == "LlamaForCausalLM"
    assert press("End") == "lm_head"
    assert press("Home") == "LlamaForCausalLM"
    assert press("ArrowRight", "ArrowRight", "ArrowDown") == "layers"
    assert press("ArrowLeft") == "layers"
    assert [label for _, label, _ in rows(page)][3:5] == ["layers", "norm"]
    assert press("ArrowLeft") == "model"
    assert press("l") == "layers"
    assert press("Enter", "ArrowDown") == "0–31"
    assert press("Space", "Space", "ArrowRight") == "self_attn"
    assert press("p", "o") == "post_attention_layernorm"
    assert press("Enter") == "", "a leaf opens the violation that names it"
    assert page.evaluate(
        "document.activeElement.closest('.cause').open && document.activeElement.textContent.includes('KB101')"
    )
    assert page.locator("[role=treeitem][tabindex='0']").count() == 1


def test_the_filter_finds_modules_by_layer_number_class_and_code(visit):
    page = visit("8B")
    page.keyboard.press("/")
    assert focused(page) == "query"

    def found(text, severity="all"):
        page.fill("#query", text)
        page.locator(f"label:has(input[value={severity}])").click()
        page.wait_for_timeout(150)
        hits = page.eval_on_selector_all(".row:not(.missed) .label", "labels => labels.map(label => label.textContent)")
        causes = page.eval_on_selector_all(
            ".cause", "all => all.filter(one => one.checkVisibility()).map(one => one.querySelector('code').textContent)"
        )
        return hits, causes, page.text_content("#matched")

    assert found("layers.5.mlp") == (["mlp"], [], "0 causes, 32 modules")
    assert found("31.self_attn.q_proj") == (["q_proj"], [], "0 causes, 32 modules")
    assert found("layers.32.mlp") == ([], [], "0 causes, 0 modules")
    assert found("RMSNorm")[0] == ["input_layernorm", "post_attention_layernorm", "norm"]
    assert found("layers.*.input_layernorm")[1:] == (["KB101", "KB201"], "2 causes, 32 modules")
    assert found("KB402") == (["LlamaForCausalLM"], ["KB402"], "1 cause, 1 module")
    assert found("", "error") == ([], [], "0 causes, 0 modules")
    assert found("", "warning")[2] == "3 causes, 68 modules"
    page.focus("#query")
    page.keyboard.press("Escape")
    assert found("")[2] == ""
    assert len(rows(page)) == 18


def test_a_place_leads_to_its_row_and_a_row_to_its_violation(visit):
    page = visit("8B")

    page.get_by_role("button", name="model.layers.*.input_layernorm", exact=True).click()
    assert focused(page) == "input_layernorm"

    page.get_by_role("treeitem", name="lm_head").get_by_text("KB201").click()
    assert "KB201" in page.evaluate("document.activeElement.textContent")


def test_671b_opens_at_once_and_stays_small(visit, pages):
    page = visit("671B")

    assert pages["671B"].stat().st_size < 120_000
    took = page.evaluate(
        "(({loadEventEnd, startTime}) => loadEventEnd - startTime)(performance.getEntriesByType('navigation')[0])"
    )
    assert took < 2000
    assert re.search(r"([\d]+) modules", page.text_content(".modules > .muted"))[1] == str(6 + 3 * 15 + 58 * (18 + 256 * 4))
    shown = rows(page)
    assert len(shown) <= 26
    assert [label for level, label, _ in shown if level == 4][:2] == ["0–2", "3–6, 8, 10–60"]

    page.fill("#query", "layers.9.mlp.experts.200")
    page.wait_for_timeout(300)

    assert page.text_content("#matched") == "1 cause, 2 modules"
    assert [label for _, label, _ in rows(page)] == [
        "DeepseekV3ForCausalLM",
        "model",
        "layers",
        "7, 9",
        "mlp",
        "experts",
        "200",
    ]
    slow = page.evaluate(
        "() => { const start = performance.now(); trees[0].filter(['proj'], 'all'); return performance.now() - start; }"
    )
    assert slow < 1000


def test_without_javascript_the_page_is_still_a_report(visit):
    page = visit("671B", java_script_enabled=False)

    text = page.text_content("body")
    assert page.locator(".static tbody tr").count() > 30
    assert page.locator(".static tbody tr").count() <= 400
    assert "3–6, 8, 10–60 ×56" in " ".join(text.split())
    assert page.locator(".filter").is_hidden()
    page.locator(".cause > summary").nth(1).click()
    assert page.locator(".cause").nth(1).get_attribute("open") is None


def test_it_prints_what_is_folded_away(visit):
    page = visit("8B", scheme="dark")
    page.locator(".cause > summary").first.click()
    assert not page.locator(".cause .body").first.is_visible()

    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")

    assert page.locator(".cause .body").first.is_visible()
    assert page.locator(".filter").is_hidden()
    assert page.evaluate(CONTRAST)[1] == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert set(page.eval_on_selector_all("details", "all => all.map(one => one.open)")) == {True}
