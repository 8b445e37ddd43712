"""The HTML page, used in headless Chromium: by eye, by keyboard, on paper, and without JavaScript."""

from __future__ import annotations

import dataclasses
import re
import shutil

import pytest
import tiny
import torch
import transformers
from page_reports import HOSTILE, SHOWN, module, report, violation

import kbitlint
from kbitlint.model.build import meta
from kbitlint.output.html import origin
from kbitlint.output.html.page import render
from kbitlint.registry import all_rules

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


def llama_8b():
    return kbitlint.check(built(transformers.LlamaConfig(**LLAMA_3_8B)), outline=True, trace=False)


def deepseek_671b():
    model = built(transformers.DeepseekV3Config(), unfused)
    for layer in (7, 9):  # two layers of 61 are unlike the others, for one of their 256 experts
        model.model.layers[layer].mlp.experts[200].up_proj.bias = torch.nn.Parameter(torch.empty(2048, device="meta"))
    return kbitlint.check(model, outline=True, trace=False)


def adapted():
    return kbitlint.check(tiny.with_lora(tiny.load()), outline=True, trace=False)


def hostile():
    outline = (module("", HOSTILE), module(HOSTILE))
    return report(target=HOSTILE, violations=(violation(HOSTILE, message=HOSTILE),), outline=outline)


#: name -> the report on a model at its real number of modules, without weights
REPORTS = {"8B": llama_8b, "671B": deepseek_671b, "adapted": adapted, "hostile": hostile}
#: a model of 45,000 modules takes 20 seconds to audit
SIZES = ["8B", pytest.param("671B", marks=pytest.mark.slow)]


class Pages(dict):
    """name -> the file of a page, made when it is first asked for."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __missing__(self, name):
        made = REPORTS[name]()
        audited = made if name == "hostile" else dataclasses.replace(made, target=f"{name}.py:build")
        self[name] = self.folder / f"{name}.html"
        self[name].write_text(render([audited], rules=() if name == "hostile" else all_rules()), encoding="utf-8")
        return self[name]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return Pages(tmp_path_factory.mktemp("pages"))


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
@pytest.mark.parametrize("name", SIZES)
def test_all_text_can_be_read_in_both_schemes(visit, name, scheme):
    page = visit(name, scheme=scheme)

    seen, low = page.evaluate(CONTRAST)

    assert (low, seen > 100) == ([], True)
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(247, 247, 245)") == (scheme == "light")


@pytest.mark.parametrize("width", [400, 700, 1280])
@pytest.mark.parametrize("name", [*SIZES, "hostile"])
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


@pytest.mark.slow
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


@pytest.mark.slow
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
