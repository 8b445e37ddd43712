from __future__ import annotations

import pytest
import torch
import transformers
from script_cases import NEWEST, OLD, findings, fixed_text, flagged_lines

OLD_STYLE = "model = AutoModelForCausalLM.from_pretrained('org/base', load_in_8bit=True, device_map='auto')\n"


def test_the_keyword_is_gone_in_transformers_5():
    assert findings("KB522", OLD_STYLE) == [
        ("error", OLD_STYLE.strip(), "from_pretrained takes no load_in_8bit any more: a TypeError")
    ]


@pytest.mark.parametrize("value", ["False", "None", "args.eight"])
def test_it_is_gone_whatever_its_value(value):
    script = OLD_STYLE.replace("True", value)

    assert flagged_lines("KB522", script) == [("error", script.strip())]


def test_it_is_gone_where_peft_hands_it_on():
    script = (
        "from peft import AutoPeftModelForCausalLM\nAutoPeftModelForCausalLM.from_pretrained('adapter', load_in_4bit=False)\n"
    )

    assert flagged_lines("KB522", script) == [("error", script.splitlines()[1])]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f('org/base', load_in_8bit=False, device_map='auto')", "f('org/base', device_map='auto')"),
        ("f('org/base', load_in_8bit=False)", "f('org/base')"),
        ("f(\n    'org/base',\n    load_in_8bit=False,\n)", "f(\n    'org/base',\n)"),
        ("f(\n    'org/base',\n    load_in_8bit=None,  # off\n)", "f(\n    'org/base',\n    # off\n)"),
        ("f(\n    'org/base',\n    load_in_8bit=False\n)", "f(\n    'org/base'\n)"),
        ("f('org/base', **{'load_in_8bit': False})", "f('org/base', **{})"),
        ("f('org/base', load_in_8bit=False  # off\n)", "f('org/base', load_in_8bit=False  # off\n)"),
        ("f('org/base', load_in_8bit=args.eight)", "f('org/base', load_in_8bit=args.eight)"),
        ("f('org/base', load_in_8bit=1 > 2)", "f('org/base', load_in_8bit=1 > 2)"),
    ],
)
def test_the_fix_for_false_leaves_it_out(before, after, tmp_path):
    script = f"model = {before}\n".replace("f(", "AutoModelForCausalLM.from_pretrained(")

    assert fixed_text("KB522", script, tmp_path, unsafe=False) == f"model = {after}\n".replace(
        "f(", "AutoModelForCausalLM.from_pretrained("
    )


def test_torchao_takes_no_text_any_more():
    script = "from transformers import TorchAoConfig\nconfig = TorchAoConfig('int4_weight_only', group_size=32)\n"

    assert findings("KB522", script) == [
        ("error", script.splitlines()[1], "TorchAoConfig takes no text any more: a ValueError")
    ]
    assert findings("KB522", script, versions=OLD) == []
    assert findings("KB522", script.replace("'int4_weight_only'", "kind")) == []


def test_the_fix_says_the_same_as_a_config(tmp_path):
    assert fixed_text("KB522", OLD_STYLE, tmp_path) == OLD_STYLE.replace(
        "load_in_8bit=True", "quantization_config=BitsAndBytesConfig(load_in_8bit=True)"
    )


def test_the_fix_for_4_bits_asks_for_nf4_and_bfloat16(tmp_path):
    script = OLD_STYLE.replace("8bit", "4bit")
    config = 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)'

    assert fixed_text("KB522", script, tmp_path, unsafe=False) == script
    assert fixed_text("KB522", script, tmp_path) == script.replace("load_in_4bit=True", f"quantization_config={config}")


@pytest.mark.parametrize(
    ("given", "config"),
    [
        (
            "load_in_4bit=True, bnb_4bit_compute_dtype=torch.half, bnb_4bit_use_double_quant=True",
            'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.half, bnb_4bit_use_double_quant=True',
        ),
        (
            "bnb_4bit_compute_dtype=torch.half, bnb_4bit_quant_type='fp4', load_in_4bit=True",
            "load_in_4bit=True, bnb_4bit_compute_dtype=torch.half, bnb_4bit_quant_type='fp4'",
        ),
        (
            "bnb_4bit_quant_storage=torch.half, load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype=dtype",
            "load_in_4bit=True, bnb_4bit_quant_storage=torch.half, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype=dtype",
        ),
        ("load_in_8bit=True, llm_int8_skip_modules=['score']", "load_in_8bit=True, llm_int8_skip_modules=['score']"),
    ],
)
@pytest.mark.parametrize("around", ["f('org/base', {})", "f('org/base', {}, device_map='auto')", "f('org/base', {},)"])
def test_what_belongs_into_the_config_moves_there_as_it_is(given, config, around, tmp_path):
    script = f"model = {around}\n".replace("f(", "AutoModelForCausalLM.from_pretrained(")

    after = script.format(f"quantization_config=BitsAndBytesConfig({config})")
    assert fixed_text("KB522", script.format(given), tmp_path).replace(", )", ")").replace(",)", ")") == after.replace(
        ",)", ")"
    )


def test_lines_that_move_into_the_config_leave_none_behind(tmp_path):
    script = "model = f(\n    'org/base',\n    {}\n)\n".replace("f(", "AutoModelForCausalLM.from_pretrained(")
    lines = "load_in_8bit=True,\n    llm_int8_threshold=4.0,\n    llm_int8_skip_modules=['score'],"
    config = (
        "quantization_config=BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=4.0, llm_int8_skip_modules=['score']),"
    )

    assert fixed_text("KB522", script.format(lines), tmp_path, unsafe=False) == script.format(config)


@pytest.mark.parametrize(
    "given",
    [
        "load_in_4bit=False, bnb_4bit_quant_type='nf4'",
        "load_in_4bit=True, **{'bnb_4bit_quant_type': 'nf4'}",
        "load_in_4bit=True, bnb_4bit_quant_type='nf4'  # as in the paper\n",
    ],
)
def test_what_cannot_move_is_left_to_the_user(given, tmp_path):
    script = f"model = AutoModelForCausalLM.from_pretrained('org/base', {given})\n"

    assert fixed_text("KB522", script, tmp_path) == script


def test_the_fix_imports_what_it_needs(tmp_path):
    imports = "from transformers import AutoModelForCausalLM\n"

    assert fixed_text("KB522", imports + OLD_STYLE, tmp_path, imports="").startswith(
        "from transformers import BitsAndBytesConfig\n" + imports
    )


def test_the_int8_preparation_is_gone_from_peft():
    script = "from peft import prepare_model_for_int8_training\n"

    assert flagged_lines("KB522", script) == [("error", script.strip())]


@pytest.mark.parametrize(
    ("script", "how"),
    [
        pytest.param(OLD_STYLE, {"versions": OLD}, id="transformers 4"),
        pytest.param("config = BitsAndBytesConfig(load_in_8bit=True)\n", {}, id="where it belongs"),
        pytest.param(OLD_STYLE.replace("AutoModelForCausalLM", "elsewhere.Model"), {}, id="another library"),
        pytest.param("kwargs = {}\n" + OLD_STYLE.replace("load_in_8bit=True", "**kwargs"), {}, id="empty kwargs"),
    ],
)
def test_look_alikes(script, how):
    assert findings("KB522", script, **how) == []


def test_where_both_are_given_the_fix_is_shown_only(tmp_path):
    script = OLD_STYLE.replace("device_map='auto'", "quantization_config=BitsAndBytesConfig(load_in_8bit=True)")

    assert flagged_lines("KB522", script) == [("error", script.strip())]
    assert fixed_text("KB522", script, tmp_path) == script


def test_an_item_of_a_dict_is_left_to_the_user(tmp_path):
    script = "model = AutoModelForCausalLM.from_pretrained('org/base', **{'load_in_8bit': True})\n"

    assert flagged_lines("KB522", script) == [("error", script.strip())]
    assert fixed_text("KB522", script, tmp_path) == script


SOMETIMES = """\
kwargs = {'device_map': 'auto'}
if args.eight:
    kwargs['load_in_8bit'] = True
model = AutoModelForCausalLM.from_pretrained('org/base', **kwargs)
"""


def test_what_only_some_paths_pass_fails_on_these(tmp_path):
    assert findings("KB522", SOMETIMES) == [
        (
            "warning",
            "kwargs['load_in_8bit'] = True",
            "from_pretrained takes no load_in_8bit any more: a TypeError where it is passed",
        )
    ]
    assert findings("KB522", SOMETIMES.replace("if args.eight", "if not args.full"))[0][0] == "warning"
    assert fixed_text("KB522", SOMETIMES, tmp_path) == SOMETIMES
    assert findings("KB522", SOMETIMES, versions=OLD) == []


def test_a_branch_for_an_older_version_is_not_flagged():
    assert findings("KB522", SOMETIMES.replace("args.eight", "transformers.__version__ < '5'")) == []


CONFIG = 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16{})'
ALONE = 'model = AutoModelForCausalLM.from_pretrained("m", quantization_config={}, bnb_4bit_use_double_quant=True)\n'


def test_an_argument_of_the_config_in_the_load_moves_into_the_config(tmp_path):
    body = ALONE.format(CONFIG.format(""))

    assert flagged_lines("KB522", body) == [("error", body.strip())]
    moved = CONFIG.format(", bnb_4bit_use_double_quant=True")
    assert (
        fixed_text("KB522", body, tmp_path)
        == f'model = AutoModelForCausalLM.from_pretrained("m", quantization_config={moved})\n'
    )


def test_an_argument_beside_a_config_of_elsewhere_is_shown_only(tmp_path):
    body = f"config = {CONFIG.format('')}\n" + ALONE.format("config")

    assert [line for _, line in flagged_lines("KB522", body)] == [ALONE.format("config").strip()]
    assert fixed_text("KB522", body, tmp_path) == body


def test_the_fix_keeps_the_values_of_the_user_and_what_it_writes_is_taken(tmp_path):
    arguments = ("load_in_4bit=True", "bnb_4bit_compute_dtype=torch.half", "bnb_4bit_use_double_quant=True")
    body = 'model = AutoModelForCausalLM.from_pretrained(\n    "m",\n' + "".join(f"    {one},\n" for one in arguments) + ")\n"
    fixed = fixed_text("KB522", body, tmp_path)

    assert fixed.count("bnb_4bit_compute_dtype=torch.half") == fixed.count("bnb_4bit_use_double_quant=True") == 1
    assert [flagged_lines(code, fixed) for code in ("KB522", "KB535")] == [[], []]
    made = fixed[fixed.index("BitsAndBytesConfig(") : fixed.rindex(")\n)") if ")\n)" in fixed else fixed.rindex("),") + 1]
    config = eval(made, {"BitsAndBytesConfig": transformers.BitsAndBytesConfig, "torch": torch})  # noqa: S307  # our own code
    assert (config.bnb_4bit_compute_dtype, config.bnb_4bit_use_double_quant) == (torch.float16, True)


def test_an_older_peft_has_the_function_for_int8():
    body = "from peft import prepare_model_for_int8_training\nmodel = prepare_model_for_int8_training(model)\n"
    pinned = {**NEWEST, "transformers": "4.30.2", "peft": "0.4.0"}

    assert [severity for severity, _ in flagged_lines("KB522", body)] == ["error"]
    assert flagged_lines("KB522", body, versions=pinned) == []


def test_a_misspelt_argument_is_one_finding_and_its_fix_repeats_no_keyword(tmp_path):
    body = 'config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_type=torch.bfloat16)\n'

    assert flagged_lines("KB502", body) == flagged_lines("KB520", body) == []
    assert [severity for severity, _ in flagged_lines("KB521", body)] == ["warning"]
    assert fixed_text("KB521", body, tmp_path) == body.replace("compute_type", "compute_dtype")
