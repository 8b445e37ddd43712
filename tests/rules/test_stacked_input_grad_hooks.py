from __future__ import annotations

import pytest
import tiny
from peft import prepare_model_for_kbit_training
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings, fixed_text

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


# ---------------------------------------------------------------------------------------------------- source


TWICE = LOADED + PREPARED + "model.enable_input_require_grads()\n" + ADAPTED + TRAINED


def test_a_call_that_repeats_the_preparation():
    assert findings("KB302", TWICE) == [
        (
            "info",
            "model.enable_input_require_grads()",
            "the hook is installed already: prepare_model_for_kbit_training makes the same output require grad",
        )
    ]


def test_the_source_fix_leaves_the_call_out(tmp_path):
    assert fixed_text("KB302", TWICE, tmp_path, unsafe=False) == TWICE.replace("model.enable_input_require_grads()\n", "")


def test_a_call_that_is_a_branch_of_its_own_becomes_pass(tmp_path):
    script = TWICE.replace("model.enable", "if hasattr(model, 'x'): model.enable")

    assert fixed_text("KB302", script, tmp_path) == script.replace("model.enable_input_require_grads()", "pass")


@pytest.mark.parametrize(
    ("call", "left"),
    [
        ("_ = \\\n{}", None),
        ("_ = (\n{}\n)", None),
        ("print(\n  1,  # one\n  # two\n{}\n)", None),
        ("({}\n.x)", None),
        ("_ = {}", None),
        ("({})", None),
        ("{}; x = 1", "pass; x = 1"),
        ("x = 1; {}  # again", "x = 1; pass  # again"),
        ("x = f(\n  1\n)\n# two,\n{}", "x = f(\n  1\n)\n# two,"),
    ],
)
def test_a_call_that_is_part_of_a_statement_is_left_to_the_user(call, left, tmp_path):
    script = TWICE.replace("model.enable_input_require_grads()", call.format("model.enable_input_require_grads()"))
    after = script if left is None else TWICE.replace("model.enable_input_require_grads()", left)

    assert [place for place, *_ in findings("KB302", script)] == ["info"]
    assert fixed_text("KB302", script, tmp_path, unsafe=False) == after


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + "model.enable_input_require_grads()\n" + ADAPTED + TRAINED, id="the only one"),
        pytest.param(LOADED + PREPARED + ADAPTED + TRAINED, id="none by hand"),
        pytest.param(TWICE.replace(TRAINED, ""), id="not trained here"),
        pytest.param(TWICE.replace(PREPARED, "if flag:\n    " + PREPARED), id="needed on the other path"),
        pytest.param(TWICE.replace(TRAINED, "unhook(model)\n" + TRAINED), id="something unknown had the model"),
    ],
)
def test_source_look_alikes(script):
    assert findings("KB302", script) == []
