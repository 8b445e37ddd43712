from __future__ import annotations

import plants
import pytest
import tiny
from script_cases import ADAPTED, LOADED, LOOP, PREPARED, RECIPE, TRAINED, findings

import kbitlint

CODE = "KB201"


def paths(model):
    return [violation.at.path for violation in kbitlint.check(model, select=CODE).violations]


def test_what_loading_leaves_trainable_is_flagged():
    assert paths(tiny.load()) == [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.1.post_attention_layernorm.weight",
        "model.norm.weight",
    ]


def test_adapters_copies_to_save_and_trainable_tokens_are_not_the_base():
    model = tiny.with_lora(
        tiny.load(), modules_to_save=["lm_head"], trainable_token_indices={"embed_tokens": [1, 2]}, target_modules=["q_proj"]
    )

    assert paths(model) == []


def test_biases_that_peft_trains_on_purpose_are_not_flagged():
    model = tiny.with_lora(tiny.load("opt"), bias="all")

    assert any(name.endswith("bias") and p.requires_grad for name, p in model.named_parameters())
    assert paths(model) == []


def test_prompt_encoders_are_not_the_base():
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(tiny.prepared(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))

    assert paths(model) == []


def test_adapters_of_another_library_are_told_by_their_names():
    import torch

    model = tiny.prepared()
    layer = model.model.layers[0].self_attn
    layer.lora_A = torch.nn.Linear(64, 4, bias=False)

    assert paths(model) == []


def test_a_base_model_may_call_a_part_of_its_own_adapter():
    import torch

    model = tiny.prepared()
    model.model.audio_adapter = torch.nn.Linear(4, 4, bias=False)
    model.model.layers[0].adapter = torch.nn.Linear(4, 4, bias=False)

    assert paths(model) == ["model.audio_adapter.weight", "model.layers.0.adapter.weight"]


def test_full_fine_tuning_of_an_unquantized_model_is_skipped():
    report = kbitlint.check(tiny.load(kind="none"), select=CODE)

    assert (report.violations, [skip.code for skip in report.skips]) == ((), [CODE])


def safeties(model):
    return {violation.fix.safety.value for violation in kbitlint.check(model, select=CODE).violations}


def test_the_fix_is_safe_before_adapters_and_unsafe_after():
    adapted = tiny.with_lora(tiny.prepared())
    plants.FAULTS["trainable-base-parameter"].plant(adapted.get_base_model())

    assert safeties(plants.faulty("trainable-base-parameter")) == {"safe"}
    assert safeties(adapted) == {"unsafe"}


def test_parameters_that_somebody_chose_are_left_alone_by_safe_fixes():
    """Norm tuning or probing of a quantized base: freezing would leave nothing that trains."""
    model = tiny.prepared()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name)

    kbitlint.fix(model)

    assert safeties(model) == {"unsafe"}
    assert tiny.step(model).trains


def test_a_wrappers_own_parameters_are_not_the_base():
    import torch

    class SoftPrompt(torch.nn.Module):
        def __init__(self, lm):
            super().__init__()
            self.lm = lm
            self.prompt = torch.nn.Parameter(torch.zeros(4, 64))

    assert paths(SoftPrompt(tiny.prepared())) == []


def test_adaption_prompts_are_not_the_base():
    from peft import AdaptionPromptConfig, get_peft_model

    model = get_peft_model(tiny.load(), AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=4, adapter_layers=1))

    assert paths(model) == []


# ---------------------------------------------------------------------------------------------------- source


UNFREEZE = "for p in model.parameters():\n    p.requires_grad = True\n"


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (UNFREEZE, "p.requires_grad = True"),
        ("model.requires_grad_(True)\n", "model.requires_grad_(True)"),
        ("for p in model.parameters():\n    p.requires_grad_()\n", "p.requires_grad_()"),
    ],
)
def test_packed_weights_cannot_require_grad(code, line):
    assert findings("KB201", LOADED + code) == [
        ("error", line, "packed weights are made to require grad, which only floating point tensors can")
    ]


NAMED = LOADED.replace("org/base", "meta-llama/Llama-3.2-1B")
FIRST = "for name, p in model.named_parameters():\n    if {}:\n        p.requires_grad = True\n"


@pytest.mark.parametrize(
    ("start", "condition", "flagged"),
    [
        (NAMED, "'.0.' in name", True),
        (NAMED, "'self_attn' in name and 'norm' not in name", True),
        (NAMED, "name.endswith('q_proj.weight')", True),
        (NAMED + PREPARED + ADAPTED, "'layers.1.' in name", True),
        (NAMED.replace("Llama-3.2-1B", "Llama-2-7b-hf") + PREPARED + ADAPTED, "'.layers.31.' in name", True),
        (NAMED, "'norm' in name", False),
        (NAMED, "'.0.' in name and p.is_floating_point()", False),
        (NAMED, "'lora' in name", False),
        (NAMED + PREPARED + ADAPTED, "name.endswith('q_proj.weight')", False),
        (
            NAMED.replace("load_in_4bit=True", "load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16"),
            "'.0.' in name",
            False,
        ),
        (LOADED, "'.0.' in name", False),
    ],
)
def test_packed_weights_that_a_loop_picks_by_name(start, condition, flagged):
    message = "packed weights are made to require grad, which only floating point tensors can"

    assert findings("KB201", start + FIRST.format(condition)) == [("error", "p.requires_grad = True", message)] * flagged


def test_a_loop_over_a_bare_base_trains_its_norms():
    assert findings("KB201", LOADED + LOOP) == [
        (
            "warning",
            "loss.backward()",
            "a quantized model is trained without adapters: only its norms, embeddings and head learn",
        )
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + UNFREEZE.replace("True", "False"), id="frozen"),
        *(
            pytest.param(LOADED.replace("load_in_4bit=True", settings) + UNFREEZE, id=settings)
            for settings in (
                "load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16",
                "load_in_8bit=True, llm_int8_has_fp16_weight=True",
            )
        ),
        pytest.param(LOADED + UNFREEZE.replace("    p", "    if p.ndim == 1:\n        p"), id="some of them"),
        pytest.param(LOADED + UNFREEZE.replace("True", "flag"), id="unknown value"),
        pytest.param(UNFREEZE, id="unknown model"),
        pytest.param("model = AutoModelForCausalLM.from_pretrained('org/base')\n" + UNFREEZE, id="not quantized"),
        pytest.param(RECIPE, id="adapters"),
        pytest.param(
            LOADED
            + "for n, p in model.named_parameters():\n    p.requires_grad_(False)\n    if 'norm' in n:\n"
            + "        p.requires_grad_(True)\n"
            + LOOP,
            id="norms that the script chooses",
        ),
        pytest.param(LOADED + ADAPTED + LOOP, id="a loop over adapters"),
        pytest.param(LOADED + "for p in model.parameters():\n    p.requires_grad = False\n" + LOOP, id="a frozen base"),
        pytest.param(LOADED + "inject(model)\n" + LOOP, id="something unknown had the model"),
        pytest.param(LOADED + TRAINED, id="Trainer refuses it, which is another rule"),
    ],
)
def test_source_look_alikes(script):
    assert findings("KB201", script) == []
