from __future__ import annotations

import peft
import pytest
import tiny
from script_cases import ADAPTED, LOADED, LOOP, PREPARED, RECIPE, TRAINED, findings, fixed_text, flagged_lines

import kbitlint
from kbitlint.context import Checkpointing, TrainingContext

CODE = "KB402"


def found(model, **options):
    return [(v.at.path, v.severity.value, v.message) for v in kbitlint.check(model, select=CODE, **options).violations]


def test_a_model_as_loaded_is_flagged():
    assert found(tiny.load()) == [("", "warning", "checkpointing is off: every layer keeps its activations")]


def test_one_checkpointed_layer_is_enough():
    model = tiny.prepared()
    model.model.layers[0].gradient_checkpointing = False

    assert found(model) == []


def test_a_class_that_cannot_checkpoint_is_worth_knowing_only():
    model = tiny.load()
    model.supports_gradient_checkpointing = False

    assert found(model) == [("", "info", "LlamaForCausalLM does not support checkpointing: every layer keeps its activations")]


def test_a_loop_that_switches_it_on_where_the_class_cannot_raises():
    import pytest

    model = tiny.load()
    model.supports_gradient_checkpointing = False

    assert found(model, context=TrainingContext(gradient_checkpointing=Checkpointing(enabled=True))) == [
        ("", "error", "the training loop switches checkpointing on, which LlamaForCausalLM refuses")
    ]
    with pytest.raises(ValueError, match="does not support"):
        model.gradient_checkpointing_enable()


def test_training_arguments_that_enable_it_are_believed():
    loop = Checkpointing(enabled=True, use_reentrant=False)

    assert found(tiny.load(), context=TrainingContext(gradient_checkpointing=loop)) == []
    assert found(tiny.load(), context=TrainingContext(gradient_checkpointing=Checkpointing(enabled=False))) != []


def test_an_unquantized_model_is_skipped():
    assert kbitlint.check(tiny.load(kind="none"), select=CODE).skips[0].reason == "no layer is quantized"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            peft.PolyConfig(target_modules=["q_proj"], n_tasks=2),
            "an adapter gets its tasks through hooks, which a recomputation lacks",
        ),
        (
            peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
            "an adapter works through the cache, which checkpointing drops",
        ),
    ],
)
def test_adapters_that_checkpointing_breaks_are_skipped(config, reason):
    model = peft.get_peft_model(tiny.load(), config)

    assert [skip.reason for skip in kbitlint.check(model, select=CODE, trace=False).skips] == [reason]


def test_the_fix_enables_it_without_a_hook_on_the_embeddings():
    model = tiny.load()

    kbitlint.fix(model, select=CODE)

    assert [layer._gradient_checkpointing_func.keywords for layer in model.model.layers] == [{"use_reentrant": False}] * 2
    assert all(layer.gradient_checkpointing for layer in model.model.layers)
    assert dict(model.get_input_embeddings()._forward_hooks) == {}


def test_the_fix_keeps_hooks_that_were_there():
    model = tiny.load()
    model.enable_input_require_grads()
    hooks = dict(model.get_input_embeddings()._forward_hooks)

    kbitlint.fix(model, select=CODE)

    assert dict(model.get_input_embeddings()._forward_hooks) == hooks
    model.disable_input_require_grads()
    assert dict(model.get_input_embeddings()._forward_hooks) == {}


# ---------------------------------------------------------------------------------------------------- source


def test_a_script_that_enables_nothing():
    assert findings("KB402", LOADED + ADAPTED + TRAINED) == [
        ("warning", TRAINED.strip(), "checkpointing is off: every layer keeps its activations")
    ]
    assert flagged_lines("KB402", LOADED + ADAPTED + LOOP) == [("warning", "loss.backward()")]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(RECIPE, id="on"),
        pytest.param(LOADED + ADAPTED + TRAINED.replace("bf16", "gradient_checkpointing=True, bf16"), id="by the arguments"),
        pytest.param(LOADED + "SFTTrainer(model, args=SFTConfig(), peft_config=LoraConfig()).train()\n", id="TRL's default"),
        pytest.param(LOADED + ADAPTED + TRAINED.replace("bf16", "fsdp='full_shard', bf16"), id="FSDP may checkpoint"),
        pytest.param(LOADED + "if flag:\n    model.gradient_checkpointing_enable()\n" + ADAPTED + TRAINED, id="on some path"),
        pytest.param(LOADED + ADAPTED + "setup(model)\n" + TRAINED, id="something unknown had the model"),
        pytest.param(LOADED + "model = get_peft_model(model, PrefixTuningConfig())\n" + TRAINED, id="prefix tuning"),
        pytest.param("model = AutoModelForCausalLM.from_pretrained('org/base')\n" + ADAPTED + TRAINED, id="not quantized"),
        pytest.param(LOADED + ADAPTED + "Trainer(model=model, args=args).train()\n", id="unknown arguments"),
    ],
)
def test_source_look_alikes(script):
    assert findings("KB402", script) == []


def test_the_source_fix_gives_the_argument(tmp_path):
    script = LOADED + ADAPTED + TRAINED

    assert fixed_text("KB402", script, tmp_path, unsafe=False) == script.replace(
        "bf16=True", "bf16=True, gradient_checkpointing=True"
    )


def test_where_it_is_said_to_be_off_the_fix_is_shown_only(tmp_path):
    script = LOADED + ADAPTED + TRAINED.replace("bf16", "gradient_checkpointing=False, bf16")

    assert len(findings("KB402", script)) == 1
    assert fixed_text("KB402", script, tmp_path) == script


FLAG = """\
import argparse
parser = argparse.ArgumentParser()
parser.add_argument('--bits', type=int, default=16)
options = parser.parse_args()
config = None
if options.bits == 4:
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained('org/base', quantization_config=config)
model = get_peft_model(model, LoraConfig(r=8))
Trainer(model=model, args=TrainingArguments('out', bf16=True), train_dataset=data).train()
"""


def test_the_option_that_quantizes_is_in_the_message():
    ((severity, line, message),) = findings("KB402", FLAG)

    assert (severity, message) == ("warning", "checkpointing is off (with --bits 4): every layer keeps its activations")
    assert line.startswith("Trainer(")


@pytest.mark.parametrize(
    ("name", "severity"),
    [("facebook/opt-1.3b", "info"), ("distilbert-base-uncased", "info"), ("org/model-7b", "warning"), ("org/base", "warning")],
)
def test_a_small_model_fits_without_checkpointing(name, severity):
    body = (LOADED + ADAPTED + TRAINED).replace("org/base", name)
    assert [one[0] for one in findings(CODE, body)] == [severity]


def test_a_preparation_without_checkpointing_is_a_choice():
    prepared = PREPARED.replace("model, ", "model, use_gradient_checkpointing=False, ")
    script = LOADED + prepared + ADAPTED + "Trainer(model=model, args=TrainingArguments('out')).train()\n"

    assert [severity for severity, *_ in findings("KB402", script)] == ["info"]
