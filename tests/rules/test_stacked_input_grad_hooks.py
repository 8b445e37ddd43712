from __future__ import annotations

import tiny
from peft import prepare_model_for_kbit_training

import kbitlint

CODE = "KB302"


def test_the_hooks_that_pefts_prepare_stacks_are_counted():
    model = prepare_model_for_kbit_training(tiny.load())
    model.enable_input_require_grads()  # as Trainer's checkpointing does in transformers 5

    (violation,) = kbitlint.check(model, select=CODE).violations

    hooks = len(model.get_input_embeddings()._forward_hooks)
    expected = {"hooks": ["make_inputs_require_grads"] * hooks, "orphans": hooks - 1}
    assert (violation.at.path, violation.message, violation.evidence, violation.severity.value) == (
        "model.embed_tokens",
        f"{hooks} hooks make the same output require grad",
        expected,
        "info",
    )


def test_one_hook_is_fine():
    model = tiny.load()
    model.enable_input_require_grads()

    assert kbitlint.check(model, select=CODE).violations == ()


def test_other_hooks_do_not_count():
    model = tiny.load()
    model.enable_input_require_grads()
    model.get_input_embeddings().register_forward_hook(lambda module, args, output: None)

    assert kbitlint.check(model, select=CODE).violations == ()


def test_the_hook_that_is_kept_is_the_one_that_can_be_removed():
    model = tiny.load()
    model.enable_input_require_grads()
    model.enable_input_require_grads()

    kbitlint.fix(model, select=CODE)

    assert len(model.get_input_embeddings()._forward_hooks) == 1
    model.disable_input_require_grads()
    assert len(model.get_input_embeddings()._forward_hooks) == 0
