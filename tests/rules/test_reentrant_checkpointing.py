from __future__ import annotations

import functools

import pytest
import tiny
import torch
from peft import prepare_model_for_kbit_training
from script_cases import ADAPTED, IMPORTS, LOADED, LOOP, OLD, RANKED, RECIPE, TRAINED, findings, fixed_text, flagged_lines

import kbitlint
from kbitlint.context import Checkpointing, Strategy, TrainingContext

CODE = "KB401"
UNSET = "use_reentrant is not passed, so torch checkpoints reentrantly"


def found(model, **options):
    return [(v.at.path, v.message) for v in kbitlint.check(model, select=CODE, **options).violations]


def test_pefts_prepare_without_kwargs_means_reentrant():
    model = prepare_model_for_kbit_training(tiny.load())

    assert found(model) == [("model.layers.0", UNSET), ("model.layers.1", UNSET)]


def test_pefts_prepare_with_use_reentrant_false_is_clean():
    model = prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs={"use_reentrant": False})

    assert found(model) == []


def test_an_explicit_request_is_named_as_one():
    model = tiny.load()
    tiny.bind_reentrant(model, use_reentrant=True)

    assert found(model) == [(path, "checkpointing is reentrant") for path in ("model.layers.0", "model.layers.1")]


def test_the_last_call_wins():
    model = prepare_model_for_kbit_training(tiny.load())
    model.gradient_checkpointing_enable({"use_reentrant": False})

    assert found(model) == []


def test_the_fix_keeps_the_bound_function_and_its_options():
    calls = []

    def own_checkpoint(function, *args, use_reentrant, preserve_rng_state):
        calls.append((use_reentrant, preserve_rng_state))
        return function(*args)

    model = tiny.with_lora(tiny.prepared())
    base = model.get_base_model()
    base._set_gradient_checkpointing(True, functools.partial(own_checkpoint, use_reentrant=True, preserve_rng_state=False))
    model.train()

    kbitlint.fix(model, select=CODE)

    assert tiny.step(model).trains
    assert calls == [(False, False), (False, False)]


def test_checkpointing_that_is_off_is_not_reentrant():
    model = tiny.load()
    tiny.bind_reentrant(model)
    model.gradient_checkpointing_disable()

    assert found(model) == []


@pytest.mark.parametrize(("use_reentrant", "message"), [(None, "unset"), (True, "True")])
def test_what_the_training_arguments_ask_for_counts(use_reentrant, message):
    loop = Checkpointing(enabled=True, use_reentrant=use_reentrant)

    report = kbitlint.check(tiny.prepared(), select=CODE, context=TrainingContext(gradient_checkpointing=loop))

    assert [(v.at.path, v.message, v.evidence, v.fix.edits) for v in report.violations] == [
        ("", "the training arguments ask for reentrant checkpointing", {"use_reentrant": message}, ())
    ]


def test_training_arguments_put_right_what_prepare_left():
    loop = Checkpointing(enabled=True, use_reentrant=False)
    model = prepare_model_for_kbit_training(tiny.load())

    assert found(model, context=TrainingContext(gradient_checkpointing=loop)) == []


def test_zero_3_is_skipped():
    report = kbitlint.check(tiny.load(), select=CODE, context=TrainingContext(strategy=Strategy.ZERO3))

    assert [skip.reason for skip in report.skips] == ["ZeRO-3 needs reentrant checkpointing"]


class _OwnCheckpoint(torch.nn.Module):
    gradient_checkpointing = True

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=True)


def test_a_models_own_reentrant_call_is_shown_but_not_edited():
    model = tiny.prepared()
    model.model.extra = _OwnCheckpoint()

    (violation,) = kbitlint.check(model, select=CODE).violations

    assert (violation.at.path, violation.message, violation.fix.safety.value) == (
        "model.extra",
        "checkpointing is reentrant",
        "display",
    )


def own_non_reentrant(function, *args):
    return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False)


def own_reentrant(function, *args):
    return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=True)


@pytest.mark.parametrize(
    ("function", "messages"),
    [(own_non_reentrant, []), (own_reentrant, ["checkpointing is reentrant"] * 2), (len, [])],
)
def test_a_checkpoint_function_of_ones_own_is_read_and_never_rebound(function, messages):
    model = tiny.with_lora(tiny.prepared())
    model.get_base_model()._set_gradient_checkpointing(True, function)
    model.train()
    report = kbitlint.check(model, select=CODE)

    kbitlint.fix(model, unsafe=True)

    assert [v.message for v in report.violations] == messages
    assert {v.fix.safety.value for v in report.violations} <= {"display"}
    assert all(layer._gradient_checkpointing_func is function for layer in model.get_base_model().model.layers)
    assert function is len or tiny.step(model).trains


# ---------------------------------------------------------------------------------------------------- source


PREPARE = "model = prepare_model_for_kbit_training(model)\n"
IMPLICIT = "use_reentrant is not passed, so torch checkpoints reentrantly"
KWARGS = 'gradient_checkpointing_kwargs={"use_reentrant": False}'
CALL = """from torch.utils.checkpoint import checkpoint
class Layer:
    def forward(self, x):
        return checkpoint(self.f, x)
"""
SFT = "SFTTrainer(model, args=SFTConfig(gradient_checkpointing_kwargs={'use_reentrant': True}), peft_config=LoraConfig())"
IN_A_CLASS = """
class Run:
    def __init__(self):
        self.model = AutoModelForCausalLM.from_pretrained('x', load_in_8bit=True)
        self.model = prepare_model_for_kbit_training(self.model)
    def train(self):
        self.model = get_peft_model(self.model, LoraConfig())
        Trainer(model=self.model, args=TrainingArguments('o')).train()
"""


def test_the_preparation_without_kwargs_means_reentrant():
    assert findings("KB401", LOADED + PREPARE + ADAPTED + TRAINED) == [("info", PREPARE.strip(), IMPLICIT)]


def test_several_ranks_fail_where_trainer_lets_ddp_search():
    searched = f"{IMPLICIT}, and on several ranks Trainer lets DDP look for unused parameters"

    assert findings("KB401", LOADED + PREPARE + ADAPTED + RANKED) == [("warning", PREPARE.strip(), searched)]


@pytest.mark.parametrize(
    "arguments",
    [
        "ddp_find_unused_parameters=False, bf16",
        "ddp_backend='nccl', fsdp='full_shard', bf16",
        "ddp_backend='nccl', deepspeed='zero2.json', bf16",
    ],
)
def test_ranks_without_the_search_compute_the_same(arguments):
    trained = TRAINED.replace("bf16", arguments)

    assert flagged_lines("KB401", LOADED + PREPARE + ADAPTED + trained) == [("info", PREPARE.strip())]


@pytest.mark.parametrize("kwargs", [{}, {"use_reentrant": True}])
def test_a_step_on_one_process_computes_the_same_gradients(kwargs):
    def gradients(how):
        torch.manual_seed(0)
        model = tiny.with_lora(prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs=how))
        tiny.step(model)
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    without, reentrant = gradients({"use_reentrant": False}), gradients(kwargs or None)

    assert without and without.keys() == reentrant.keys()  # noqa: PT018  # one fact: the same, and not nothing
    assert all(torch.equal(without[name], reentrant[name]) for name in without)


def test_one_process_is_told_without_a_warning():
    report = kbitlint.check(
        prepare_model_for_kbit_training(tiny.load()), select=CODE, context=TrainingContext(strategy=Strategy.SINGLE)
    )

    assert [(v.severity.value, v.message) for v in report.violations] == [("info", UNSET)] * 2


def test_the_arguments_have_the_last_word():
    asked = TRAINED.replace("bf16", "gradient_checkpointing_kwargs={'use_reentrant': True}, gradient_checkpointing=True, bf16")

    assert findings("KB401", LOADED + PREPARE + ADAPTED + asked) == [("info", asked.strip(), "checkpointing is reentrant")]


def test_where_nothing_is_trained_a_later_call_may_decide():
    assert findings("KB401", f"def load(model):\n    {PREPARE}    return model\n") == [
        ("info", PREPARE.strip(), f"{IMPLICIT}, unless a later call decides otherwise")
    ]


def test_ddp_that_looks_for_unused_parameters_fails():
    wrapped = "model = DDP(model, find_unused_parameters=True)\n" + LOOP

    assert findings("KB401", LOADED + PREPARE + ADAPTED + wrapped) == [
        ("error", PREPARE.strip(), f"{IMPLICIT}, and DDP looks for unused parameters")
    ]
    assert flagged_lines("KB401", LOADED + PREPARE + ADAPTED + wrapped.replace("True", "False")) == [("info", PREPARE.strip())]
    asleep = LOADED + PREPARE + ADAPTED + "model.eval()\n" + wrapped
    assert flagged_lines("KB401", asleep) == [("info", PREPARE.strip())]


def test_what_trainer_would_pass_to_ddp_fails_on_several_devices_only():
    asked = TRAINED.replace("bf16", "ddp_find_unused_parameters=True, bf16")

    assert flagged_lines("KB401", LOADED + PREPARE + ADAPTED + asked) == [("warning", PREPARE.strip())]


@pytest.mark.parametrize(
    ("script", "line"),
    [
        pytest.param(
            LOADED
            + "model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=True))\n"
            + ADAPTED
            + LOOP,
            "model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=True))",
            id="a dict call",
        ),
        pytest.param(
            "kwargs = {}\nkwargs['use_reentrant'] = True\n"
            + LOADED
            + "model.activation_checkpointing_enable(kwargs)\n"
            + ADAPTED
            + LOOP,
            "model.activation_checkpointing_enable(kwargs)",
            id="a dict that is filled",
        ),
        pytest.param(
            LOADED + PREPARE.replace("(model)", "(model, True)") + ADAPTED + LOOP,
            PREPARE.replace("(model)", "(model, True)").strip(),
            id="by position",
        ),
        pytest.param(
            IN_A_CLASS,
            "self.model = prepare_model_for_kbit_training(self.model)",
            id="in a class",
        ),
        pytest.param(
            f"{LOADED}trainer = {SFT}\ntrainer.train()\n",
            f"trainer = {SFT}",
            id="TRL checkpoints by default",
        ),
        pytest.param(
            "def load(bits):\n    bnb = BitsAndBytesConfig(load_in_4bit=bits == 4)\n"
            "    return AutoModelForCausalLM.from_pretrained('x', quantization_config=bnb)\n"
            "model = load(bits=4)\n" + PREPARE + ADAPTED + TRAINED,
            PREPARE.strip(),
            id="through a function",
        ),
    ],
)
def test_each_way_to_ask_for_it_is_seen(script, line):
    assert flagged_lines("KB401", script) == [("info", line)]


@pytest.mark.parametrize(
    ("script", "how"),
    [
        pytest.param(RECIPE, {}, id="without reentry"),
        pytest.param(
            LOADED + PREPARE + ADAPTED + TRAINED.replace("bf16", "gradient_checkpointing=True, bf16"),
            {},
            id="put right by Trainer",
        ),
        pytest.param(
            LOADED + PREPARE + "model.gradient_checkpointing_enable()\n" + ADAPTED + TRAINED, {}, id="put right by a later call"
        ),
        pytest.param(
            LOADED + PREPARE + ADAPTED + "SFTTrainer(model, args=SFTConfig()).train()\n", {}, id="put right by TRL's default"
        ),
        pytest.param(
            LOADED + PREPARE + "if flag:\n    model.gradient_checkpointing_enable()\n" + ADAPTED + TRAINED,
            {},
            id="put right on a path",
        ),
        pytest.param(LOADED + PREPARE.replace("(model)", "(model, use_gradient_checkpointing=False)") + TRAINED, {}, id="off"),
        pytest.param(
            LOADED + PREPARE.replace("(model)", "(model, use_gradient_checkpointing=flag)") + TRAINED, {}, id="unknown switch"
        ),
        pytest.param(LOADED + PREPARE.replace("(model)", "(model, **kwargs)") + TRAINED, {}, id="unknown kwargs"),
        pytest.param(LOADED + "model.gradient_checkpointing_enable()\n" + TRAINED, {}, id="the default of transformers 5"),
        pytest.param(
            LOADED + PREPARE + ADAPTED + TRAINED.replace("bf16", "deepspeed='zero3.json', bf16"), {}, id="ZeRO-3 needs it"
        ),
        pytest.param(LOADED + PREPARE + ADAPTED + "Trainer(model=model, args=args).train()\n", {}, id="unknown arguments"),
        pytest.param("model = AutoModelForCausalLM.from_pretrained('meta/base')\n" + PREPARE + TRAINED, {}, id="not quantized"),
        pytest.param(CALL.replace("x)\n", "x, use_reentrant=False)\n"), {}, id="a direct call that says so"),
        pytest.param(CALL.replace("x)\n", "x, use_reentrant=flag)\n"), {}, id="a direct call that asks"),
        pytest.param(CALL.replace("x)\n", "x, **kwargs)\n"), {}, id="a direct call with unknown kwargs"),
        pytest.param("import mylib\nmylib.checkpoint(f, x)\n# utils.checkpoint", {}, id="another checkpoint"),
    ],
)
def test_source_look_alikes(script, how):
    assert findings("KB401", script, **how) == []


def test_transformers_4_falls_back_to_reentrant():
    line = "model.gradient_checkpointing_enable()"

    assert flagged_lines("KB401", LOADED + line + "\n" + ADAPTED + LOOP, versions=OLD) == [("info", line)]


def test_direct_calls_are_seen_wherever_they_stand():
    assert findings("KB401", CALL) == [("warning", "return checkpoint(self.f, x)", IMPLICIT)]
    assert len(findings("KB401", "import torch\ntorch.utils.checkpoint.checkpoint_sequential(m, 2, x)\n", imports="")) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (PREPARE, PREPARE.replace("(model)", f"(model, {KWARGS})")),
        (
            PREPARE.replace("(model)", "(model, gradient_checkpointing_kwargs={'use_reentrant': True})"),
            PREPARE.replace("(model)", "(model, gradient_checkpointing_kwargs={'use_reentrant': False})"),
        ),
        (
            PREPARE.replace("(model)", "(model, gradient_checkpointing_kwargs=None)"),
            PREPARE.replace("(model)", f"(model, {KWARGS})"),
        ),
        (
            PREPARE.replace("(model)", "(\n    model,  # the base\n)"),
            PREPARE.replace("(model)", f"(\n    model,  # the base\n    {KWARGS},\n)"),
        ),
        (
            PREPARE.replace("(model)", "(\n    model  # the base\n)"),
            PREPARE.replace("(model)", f"(\n    model,  # the base\n    {KWARGS},\n)"),
        ),
        (
            "model.gradient_checkpointing_enable({'preserve_rng_state': False})\n",
            "model.gradient_checkpointing_enable({'preserve_rng_state': False, \"use_reentrant\": False})\n",
        ),
    ],
)
def test_the_source_fix_says_so_and_keeps_the_rest(before, after, tmp_path):
    assert fixed_text("KB401", LOADED + before + ADAPTED + LOOP, tmp_path, unsafe=False) == LOADED + after + ADAPTED + LOOP


def test_the_fix_of_a_direct_call(tmp_path):
    assert fixed_text("KB401", CALL, tmp_path, unsafe=False) == CALL.replace("x)\n", "x, use_reentrant=False)\n")


def test_what_takes_no_kwargs_is_shown_only(tmp_path):
    script = LOADED + "from peft import prepare_model_for_int8_training\nmodel = prepare_model_for_int8_training(model)\n"

    assert len(findings("KB401", script, versions=OLD)) == 1


YAML = """
base_model: org/base
load_in_4bit: true
adapter: qlora
micro_batch_size: 1
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: true  # as always
"""


def test_a_configuration_file_is_a_script_too(tmp_path):
    assert flagged_lines("KB401", YAML, suffix=".yaml") == [("info", "gradient_checkpointing_kwargs:")]
    assert fixed_text("KB401", YAML, tmp_path, suffix=".yaml") == YAML.replace("use_reentrant: true", "use_reentrant: false")


def test_what_a_version_does_not_take_is_not_written(tmp_path):
    script = "# transformers==4.31.0 peft==0.4.0\n" + RECIPE.replace(
        ', gradient_checkpointing_kwargs={"use_reentrant": False}', ""
    )
    path = tmp_path / "train.py"
    path.write_text(IMPORTS + script)

    (violation,) = kbitlint.check(str(path), select=["KB401"]).violations

    assert (violation.fix.title, violation.fix.edits) == ("pass use_reentrant=False", ())
