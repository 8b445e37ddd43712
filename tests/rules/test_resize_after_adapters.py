"""KB608: embeddings that are resized while adapters wrap them."""

from __future__ import annotations

import peft
import pytest
import tiny
from script_cases import LOADED, findings

CONFIGS = {
    "a copy of the embedding": ("modules_to_save=['embed_tokens', 'lm_head']", True),
    "a copy of the head": ("modules_to_save=['lm_head']", True),
    "adapters on the embedding": ("target_modules=['q_proj', 'embed_tokens']", True),
    "adapters on the head": ("target_modules=['q_proj', 'lm_head']", True),
    "chosen tokens": ("trainable_token_indices=[1, 2]", True),
    "linear layers": ("target_modules=['q_proj', 'v_proj']", False),
    "all linear layers": ("target_modules='all-linear'", False),
}


def said(body):
    return [(severity, message) for severity, _, message in findings("KB608", body)]


@pytest.mark.parametrize(("settings", "refused"), CONFIGS.values(), ids=CONFIGS)
def test_the_verdict_is_what_transformers_does(settings, refused):
    model = peft.get_peft_model(
        tiny.load("llama", kind="none"),
        eval(f"peft.LoraConfig(task_type='CAUSAL_LM', {settings})", {"peft": peft}),  # noqa: S307  # the test's own code
    )
    size = model.get_input_embeddings().weight.shape[0] + 8
    try:
        model.resize_token_embeddings(size)
        raised = ""
    except (TypeError, KeyError) as error:
        raised = type(error).__name__

    body = f"model = get_peft_model(model, LoraConfig({settings}))\nmodel.resize_token_embeddings(len(tokenizer))\n"
    found = said(LOADED + body)

    assert bool(raised) is refused
    assert [(severity, message.rpartition(": ")[2]) for severity, message in found] == [("error", "a TypeError")] * refused


def test_a_resize_before_the_adapters_or_after_a_merge_is_clean():
    attach = "model = get_peft_model(model, LoraConfig(modules_to_save=['embed_tokens']))\n"
    resize = "model.resize_token_embeddings(len(tokenizer))\n"

    assert said(LOADED + resize + attach) == []
    assert said(f"{LOADED}{attach}model = model.merge_and_unload()\n{resize}") == []


def test_a_branch_makes_a_warning():
    body = (
        f"{LOADED}import cfg\nif cfg.embed:\n    model = get_peft_model(model, LoraConfig(modules_to_save=['embed_tokens']))\n"
        "model.resize_token_embeddings(len(tokenizer))\n"
    )

    assert [severity for severity, _ in said(body)] == ["warning"]
