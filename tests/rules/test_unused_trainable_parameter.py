from __future__ import annotations

import functools

import peft
import pytest
import tiny
import torch
import trace_cases
import transformers

from kbitlint.context import Strategy, TrainingContext

CODE = "KB203"
IDLE = "the module is not called in the forward pass on text, and holds trainable parameters"


def test_a_vision_tower_that_text_never_reaches_is_worth_knowing():
    model = trace_cases.adapted("llava (vision-language)")
    told = trace_cases.trace_findings(model, CODE)

    assert told == [
        ("model.multi_modal_projector", "info", IDLE),
        ("model.vision_tower", "info", IDLE),
    ]
    missing = {name.removeprefix("base_model.model.").split(".")[1] for name in tiny.step(model).missing}
    assert missing == {"vision_tower", "multi_modal_projector"}


def test_under_ddp_that_looks_for_no_unused_parameters_it_is_an_error():
    model = trace_cases.adapted("llava (vision-language)")
    waiting = TrainingContext("float32", strategy=Strategy.DDP, find_unused_parameters=False)
    looking = TrainingContext("float32", strategy=Strategy.DDP, find_unused_parameters=True)

    assert trace_cases.trace_findings(model, CODE, waiting)[0] == (
        "model.multi_modal_projector",
        "error",
        f"{IDLE}: DDP waits for their gradients",
    )
    assert {severity for _, severity, _ in trace_cases.trace_findings(model, CODE, looking)} == {"info"}


def test_a_parameter_that_its_module_ignores_is_found():
    model = trace_cases.adapted()
    tiny.adapters_base(model).model.norm.register_parameter("extra", torch.nn.Parameter(torch.ones(64)))

    assert trace_cases.trace_findings(model, CODE) == [
        ("model.norm", "info", "the module runs without using it on text, and holds trainable parameters")
    ]


def test_where_every_parameter_is_used_nothing_is_said():
    assert trace_cases.trace_findings(trace_cases.adapted(), CODE) == []
    assert trace_cases.trace_findings(tiny.prepared("llava (vision-language)"), CODE) == []  # nothing is trainable yet


def test_a_step_that_stops_before_any_gradient_is_a_skip():
    model = trace_cases.adapted()
    tiny.adapters_base(model).lm_head.register_forward_hook(lambda module, args, output: output + output[0, 0, :3] @ output[0])

    assert trace_cases.skipped(model, CODE)[0].startswith("the step stops before a gradient could arrive")


@pytest.fixture
def untied(tmp_path):
    """Return a BART whose halves have embeddings of their own, so that no forward pass reads the shared one."""
    config = transformers.AutoConfig.from_pretrained(tiny.checkpoint("bart (encoder-decoder)"))
    config.tie_word_embeddings = False
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    return functools.partial(
        transformers.AutoModelForSeq2SeqLM.from_pretrained, tmp_path, quantization_config=tiny.quantization(), device_map="cpu"
    )


def test_an_embedding_that_no_batch_reads_is_an_error_if_nothing_else_learns(untied):
    alone, beside = untied(), untied()
    alone.add_adapter(peft.TrainableTokensConfig(token_indices=[5, 6], target_modules=["shared"]))
    beside.add_adapter(peft.LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices={"shared": [5, 6]}))

    assert trace_cases.trace_findings(alone, CODE) == [("model.shared", "error", IDLE)]
    assert tiny.step(alone).error.startswith("element 0 of tensors does not require grad")
    assert trace_cases.trace_findings(beside, CODE) == [("model.shared", "info", IDLE)]
    assert {name.rpartition(".trainable")[0] for name in tiny.step(beside).missing} == {"model.shared.token_adapter"}


class PastItsAdapter(torch.nn.Module):
    """Code that calls the base layer in an adapter, as fused kernels of one's own do."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, hidden):
        return self.layer.base_layer(hidden)


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "v_proj"]])
def test_a_base_layer_that_code_calls_past_its_adapter(targets):
    """The input's hook keeps the step alive. Where the adapters on other layers learn, it is a warning."""
    model = peft.get_peft_model(tiny.prepared(), peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    for layer in model.base_model.model.model.layers:
        layer.self_attn.q_proj = PastItsAdapter(layer.self_attn.q_proj)
    severity = "error" if len(targets) == 1 else "warning"
    message = "code calls its base layer: the adapter takes no part"
    assert trace_cases.trace_findings(model, CODE) == [
        (f"model.layers.{index}.self_attn.q_proj.layer", severity, message) for index in (0, 1)
    ]
    model.enable_input_require_grads()
    assert sorted(name for name in tiny.step(model).missing if "lora_" in name) == sorted(
        name for name, _ in model.named_parameters() if "lora_" in name and "q_proj" in name
    )


def test_an_idle_adapter_in_a_layer_that_runs_is_not_called_past():
    """The layer itself calls its base layer then, and the active adapter."""
    model = peft.get_peft_model(tiny.prepared(), peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    model.add_adapter("second", peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    assert {(severity, "base layer" in message) for _, severity, message in trace_cases.trace_findings(model, CODE)} == {
        ("info", False)
    }
    assert {name.split(".")[-2] for name in tiny.step(model).missing} == {"second"}
