"""What constructors refuse: each row against the installed libraries, and each `raise` of the libraries against the rows."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import itertools
import re
import warnings
from pathlib import Path

import peft
import pytest
import raises
import tiny
import torch
import transformers
import trl
from script_cases import LOADED, NEWEST, findings

from kbitlint.upstream.contracts.conditions import FUNCTIONS, names, parsed
from kbitlint.upstream.contracts.defaults import DEFAULTS
from kbitlint.upstream.contracts.rows import _TABLES, rows_of
from kbitlint.upstream.quantization import QUANTIZATION_CONFIGS
from kbitlint.upstream.versions import installed, number

LIBRARIES = {"peft": peft, "transformers": transformers, "trl": trl}
newest = pytest.mark.skipif(
    any(number(installed()[name]) < number(NEWEST[name])[:2] for name in LIBRARIES),
    reason="the rows describe the newest versions",
)
ROWS = [(library, row) for library in LIBRARIES for row in rows_of(library)]
CASES = [
    (callee, row)
    for _, row in ROWS
    for callee in row.callees
    if row.example and "*" not in callee and callee.rpartition(".")[2].endswith(("Config", "Arguments"))
]
CASES += [("transformers.TrainingArguments", row) for _, row in ROWS if "trl.*Config" in row.callees and row.example]
#: arguments that a class needs in any case
NEEDED = {"AdaLoraConfig": "total_step=100", "GPTQConfig": "bits=4", "PromptTuningConfig": "num_virtual_tokens=4"}


def constructor(callee):
    library, _, name = callee.partition(".")
    return getattr(LIBRARIES[library], name)


def classes():
    """Return every class that a row is about, by full name."""
    known = {f"peft.{name}" for name in dir(peft) if name.endswith("Config")}
    known |= {f"trl.{name}" for name in dir(trl) if name.endswith("Config") and name != "ModelConfig"}
    known |= {f"transformers.{name}" for name in (*QUANTIZATION_CONFIGS, "TrainingArguments", "Seq2SeqTrainingArguments")}
    return known


def outcome(callee, code, row):
    """Return the exception or warning that the library gives for some arguments; None if it takes them all."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = eval(f"make({code})", {"make": constructor(callee), "torch": torch})  # noqa: S307  # the tests' own code
            if row.moment == "when it is attached":
                attach(made)
            elif row.moment == "when it trains":
                train(made)
            elif row.moment:
                quantize(made)
    except Exception as error:  # noqa: BLE001  # the library's own refusal is the result
        return type(error).__name__, " ".join(str(error).split())
    return next((("", str(one.message)) for one in caught if "ignored" in str(one.message)), None)


def attach(config):
    experts = getattr(config, "target_parameters", None)
    if experts is None and config.target_modules is None:
        config.target_modules = {"q_proj"}
    peft.get_peft_model(tiny.load("qwen3_moe (MoE, q and k norms)" if experts else "llama", kind="none"), config)


def train(arguments):
    example = {"input_ids": [1, 2, 3], "labels": [1, 2, 3]}
    arguments.report_to, arguments.save_strategy = [], "no"
    transformers.Trainer(model=tiny.load(kind="none"), args=arguments, train_dataset=[example]).train()


def quantize(config):
    from bitsandbytes.functional import quantize_4bit

    quantize_4bit(torch.ones(64, 64), quant_type=config.bnb_4bit_quant_type)


def parts(message):
    """Return the constant parts of a message: between them are several blanks, or an empty pair of brackets or quotes."""
    split = re.split(r" {2,}|\(\)|''", message)
    return [part.strip(" '`=") for part in split if len(part.strip(" '`=")) > 4]


@newest
@pytest.mark.parametrize(("callee", "row"), CASES, ids=lambda value: getattr(value, "when", value))
def test_the_library_refuses_what_a_row_says_and_gives_its_message(callee, row):
    code = row.example
    if row.moment != "" and "peft" in callee and "target" not in code:
        code += ", target_modules=['q_proj']"

    refused = outcome(callee, code, row)

    assert refused is not None
    if refused[0] == "ImportError" or "to be installed" in refused[1]:  # before the class looks at the other arguments
        assert importlib.util.find_spec("scipy" if "loftq" in code else "torchao") is None
        return
    assert refused[0] == row.raises
    assert [part for part in parts(row.message)[:1] if part not in refused[1].replace('"', "'").replace("self.", "")] == []


@newest
@pytest.mark.parametrize(("callee", "row"), CASES, ids=lambda value: getattr(value, "when", value))
def test_kbitlint_says_the_same_as_the_library_of_each_part_of_an_example(callee, row):
    """Each argument of an example is left out in turn, so that the condition is not wider than the refusal."""
    library, _, name = callee.partition(".")
    given = split(row.example)
    needed = NEEDED.get(name, "")
    for chosen in itertools.chain([given], itertools.combinations(given, len(given) - 1)):
        code = ", ".join(chosen)
        if needed and needed.partition("=")[0] not in code and len(chosen) < len(given):
            code = ", ".join(filter(None, (code, needed)))
        if "use_cpu" in row.example and "use_cpu" not in code:
            code += ", use_cpu=True"
        body = f"import {library}, torch\nload_in_4bit = {library}.{name}({code})\n"
        said = {message for _, _, message in findings("KB535", body, imports="import transformers  # from_pretrained\n")}

        refused = outcome(callee, code, row)
        if refused is not None and "missing 1 required" in refused[1]:
            continue
        if refused is not None and refused[0] == "ImportError":
            continue

        assert bool(said) == (refused is not None), (code, said, refused)


@newest
@pytest.mark.parametrize("optimizer", ["galore_adamw", "apollo_adamw"])
def test_a_low_rank_optimizer_asks_for_the_layers_that_it_takes(optimizer, tmp_path):
    """The packages of these optimizers are no requirement, so transformers' own check is called behind their import."""
    from transformers.trainer_optimizer import _setup_low_rank_optimizer

    arguments = transformers.TrainingArguments(tmp_path, optim=optimizer, use_cpu=True)
    with pytest.raises(ValueError, match="You need to define `optim_target_modules`"):
        _setup_low_rank_optimizer(arguments, None, optimizer, {optimizer: None}, {}, {})

    script = "args = transformers.TrainingArguments('out', optim='{}'{})\n"
    given = ", optim_target_modules=['attn']"
    found = [
        findings(
            "KB535", LOADED + script.format(optimizer, more), imports="from transformers import *\nimport torch, transformers\n"
        )
        for more in ("", given)
    ]
    assert [len(one) for one in found] == [1, 0]


def split(code):
    """Return the arguments of a call as code."""
    import ast

    return [ast.unparse(keyword) if isinstance(keyword, ast.expr) else f"{keyword.arg}={ast.unparse(keyword.value)}"
            for keyword in ast.parse(f"f({code})", mode="eval").body.keywords]  # fmt: skip


@newest
def test_conditions_name_arguments_that_the_classes_have():
    unknown = []
    for _, row in ROWS:
        for callee in sorted(classes()):
            if callee in row.callees:
                known = inspect.signature(constructor(callee).__init__).parameters
                unknown += [(callee, name) for name in (*names(row.when), row.drops) if name and name not in known]

    assert unknown == []


@newest
def test_defaults_are_those_of_the_installed_classes():
    wrong = []
    for callee, values in DEFAULTS.items():
        if callee.partition(".")[0] in LIBRARIES:
            parameters = inspect.signature(constructor(callee).__init__).parameters
            fields = {field.name: field for field in dataclasses.fields(constructor(callee))} if callee not in {
                f"transformers.{name}" for name in QUANTIZATION_CONFIGS} else {}  # fmt: skip
            for name, value in values.items():
                default = parameters[name].default
                if name in fields and fields[name].default_factory is not dataclasses.MISSING:
                    default = tuple(fields[name].default_factory())
                if getattr(default, "value", default) != value:
                    wrong.append((callee, name, value, default))

    assert wrong == []


@newest
def test_arguments_without_a_row_of_defaults_default_to_none_or_false():
    wrong = []
    for _, row in ROWS:
        for callee in sorted(classes()):
            if row.concerns(callee) and number(NEWEST["trl"]):
                parameters = inspect.signature(constructor(callee).__init__).parameters
                for name in names(row.when):
                    default = parameters[name].default if name in parameters else None
                    unset = default is inspect.Parameter.empty or "factory" in repr(default)
                    if not unset and default and name not in DEFAULTS.get(callee, {}):
                        wrong.append((callee, name, default))

    assert wrong == []


def test_every_condition_is_in_the_language():
    for library in _TABLES:
        with contextlib.suppress(ModuleNotFoundError):
            for row in rows_of(library):
                assert parsed(row.when)
                assert not set(names(row.when)) & set(FUNCTIONS)


@newest
def test_every_refusal_of_the_installed_libraries_is_a_row_or_is_listed_with_a_reason():
    """A new version of a library shows here what it refuses and ignores anew."""
    listed = {}
    for line in (Path(__file__).parents[1] / "data" / "contracts.tsv").read_text().splitlines()[1:]:
        file, function, message, reason = line.split("\t")
        listed[raises.Site(file, function, message)] = reason
    found = raises.sites()
    ours = [" ".join(row.message.split()) for _, row in ROWS]

    def has_row(site):
        return any(own[:60] in site.message or (site.message and site.message in own) for own in ours)

    assert [site for site in found if site not in listed and not has_row(site)] == []
    assert [site for site in listed if site not in found] == []
    assert [site for site, reason in listed.items() if not reason] == []
