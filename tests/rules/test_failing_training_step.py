from __future__ import annotations

import peft
import pytest
import tiny
import torch
import trace_cases
import transformers
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

from kbitlint.context import TrainingContext

CODE = "KB304"


def test_a_leaf_that_is_written_in_place_is_an_error_as_in_the_real_step():
    model = trace_cases.adapted()
    tiny.adapters_base(model).enable_input_require_grads()
    tiny.adapters_base(model).model.embed_tokens.register_forward_hook(lambda module, args, output: output.mul_(2))

    failure = "a leaf Variable that requires grad is being used in an in-place operation."
    told = trace_cases.trace_findings(model, CODE)
    assert [(severity, message) for _, severity, message in told] == [
        ("error", f"the training step raises RuntimeError: {failure}")
    ]
    assert tiny.step(model).error == failure


def test_a_value_that_backward_needs_and_code_overwrites_is_an_error():
    class Overwritten(torch.nn.Module):
        def __init__(self, mlp):
            super().__init__()
            self.mlp = mlp

        def forward(self, hidden):
            out = torch.sigmoid(self.mlp(hidden))
            kept = out * 1
            out.zero_()
            return kept

    model = trace_cases.adapted()
    tiny.adapters_base(model).gradient_checkpointing_disable()
    layer = tiny.adapters_base(model).model.layers[1]
    layer.mlp = Overwritten(layer.mlp)

    assert len(trace_cases.trace_findings(model, CODE)) == 1
    assert "modified by an inplace operation" in tiny.step(model).error


def test_steps_that_run_or_fail_for_a_reason_of_another_rule_are_not_reported():
    reentrant = trace_cases.adapted()
    tiny.bind_reentrant(reentrant, use_reentrant=True)

    assert trace_cases.trace_findings(trace_cases.adapted(), CODE) == []
    assert trace_cases.trace_findings(reentrant, CODE) == []
    assert trace_cases.trace_findings(trace_cases.bare_norms(), CODE) == []


def whisper(task):
    """Whisper with LoRA for a task of PEFT, or for none."""
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type=task)
    return peft.get_peft_model(tiny.load("whisper (reads sound)"), config)


def classifier(*, padding):
    model = tiny.load("llama (classifier)")
    model.config.pad_token_id = padding
    return peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS"))


def raised(model):
    """The error of a real step, in one line."""
    from kbitlint.errors import one_line
    from kbitlint.model.batch import training_batch

    with pytest.raises(Exception, match=r"\w") as told:
        model.train()(**training_batch(model, "cpu")).loss.backward()
    return one_line(told.value)


@pytest.mark.parametrize(
    "make",
    [lambda: whisper("SEQ_2_SEQ_LM"), lambda: classifier(padding=None)],
    ids=["another task in PEFT", "no padding token"],
)
def test_what_the_class_or_peft_raises_for_its_own_batch_is_an_error_with_that_message(make):
    model = make()
    told = trace_cases.trace_findings(model, CODE)

    assert [(severity, message) for _, severity, message in told] == [
        ("error", f"the training step raises {raised(make())}"),
    ]


def block_circulant():
    return peft.get_peft_model(tiny.load("opt"), peft.C3AConfig(block_size=16, target_modules="all-linear"))


def hooked():
    """Hooks on the backward pass of every module, whose outputs are views by it."""
    model = tiny.load("llama")
    for module in model.modules():
        module.register_full_backward_hook(lambda *_: None)
    return peft.get_peft_model(model, peft.GraloraConfig(r=4, gralora_k=2, target_modules=["q_proj"]))


def cast_mask():
    """The causal mask of GPT-Neo is a buffer, which a cast of all buffers turns into numbers."""
    sizes = {"hidden_size": 64, "num_heads": 4, "intermediate_size": 64, "vocab_size": 256, "max_position_embeddings": 64}
    config = transformers.GPTNeoConfig(num_layers=1, attention_types=[[["global"], 1]], **sizes)
    base = transformers.GPTNeoForCausalLM(config).bfloat16()
    for buffer in base.buffers():
        buffer.data = buffer.data.bfloat16()
    return peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj"]))


def cached_twice():
    """Torch's wrapper runs the layers of GPT-J again, which fill the cache a second time."""
    sizes = {"n_embd": 64, "n_layer": 1, "n_head": 4, "rotary_dim": 8, "vocab_size": 256, "n_positions": 64}
    base = transformers.GPTJForCausalLM(transformers.GPTJConfig(bos_token_id=1, eos_token_id=1, **sizes))
    apply_activation_checkpointing(base, check_fn=lambda module: type(module).__name__ == "GPTJBlock")
    return peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules="all-linear"))


@pytest.mark.parametrize("make", [block_circulant, hooked, cast_mask, cached_twice])
def test_what_packed_weights_hooks_or_buffers_raise_is_an_error_and_no_fault_of_the_batch(make):
    told = trace_cases.trace_findings(make(), CODE)

    assert [(severity, message) for _, severity, message in told] == [("error", f"the training step raises {raised(make())}")]


@pytest.mark.parametrize("make", [lambda: whisper(None), lambda: classifier(padding=0)], ids=["whisper", "classifier"])
def test_with_the_cause_gone_the_step_trains(make):
    assert trace_cases.trace_findings(make(), CODE) == []
    assert trace_cases.skipped(make(), CODE) == []
    assert tiny.step(make()).trains


def test_one_sequence_needs_no_padding_and_the_skip_says_that_a_copy_with_weights_trains():
    context = TrainingContext(autocast_dtype="float32", batch_size=1)

    assert trace_cases.trace_findings(classifier(padding=None), CODE, context) == []
    (reason,) = trace_cases.skipped(classifier(padding=None), CODE, context)
    assert reason.endswith("(a small copy with weights trains on such a batch)")


def test_what_a_module_of_the_users_own_raises_for_a_made_batch_is_a_skip():
    class Own(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, labels):  # noqa: ARG002  # the names are what counts
            raise KeyError("a field of the user's batch")

    model = Own(trace_cases.adapted())

    assert trace_cases.trace_findings(model, CODE) == []
    (reason,) = trace_cases.skipped(model, CODE)
    assert reason.endswith("takes; pass a batch of yours: kbitlint.check(model, inputs=...))")


@pytest.mark.parametrize("numbered", [False, True])
def test_labels_that_a_config_without_special_tokens_cannot_shift_are_an_error(numbered):
    """The batch runs once it has the decoder's own input, which the labels of a usual data set do not give."""
    vision = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=16
    )
    text = transformers.BertConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, vocab_size=256, is_decoder=True
    )
    text.add_cross_attention = True
    joined = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    if numbered:
        joined.pad_token_id, joined.decoder_start_token_id = 0, 1
    torch.manual_seed(0)
    base = transformers.VisionEncoderDecoderModel(config=joined).requires_grad_(requires_grad=False)
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False))
    failure = "'VisionEncoderDecoderConfig' object has no attribute 'pad_token_id'"
    told = trace_cases.trace_findings(model, CODE)
    assert told == ([] if numbered else [("", "error", f"the training step raises AttributeError: {failure}")])
    batch = {"pixel_values": torch.zeros(2, 3, 32, 32), "labels": torch.ones(2, 8, dtype=torch.long)}
    if numbered:
        model(**batch).loss.backward()
    else:
        with pytest.raises(AttributeError, match="pad_token_id"):
            model(**batch)
