from __future__ import annotations

import tiny
import torch
import trace_cases
from diffusion import quantized
from peft import LoraConfig, get_peft_model
from torch import nn

import kbitlint
from kbitlint.context import TrainingContext
from kbitlint.model.trace.trace import trace

CODE = "KB103"


def peft_prepared():
    from peft import prepare_model_for_kbit_training

    arguments = {"use_reentrant": False}
    return tiny.with_lora(prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs=arguments))


def test_pefts_prepare_turns_the_stream_float32_from_its_start():
    model = peft_prepared()

    message = "the residual stream is float32 from its start, as PEFT's prepare makes the embeddings: "
    message += "2 of 2 layers pass on float32 while"
    message += " quantized layers compute in bfloat16"
    assert trace_cases.trace_findings(model, CODE) == [("model.embed_tokens", "info", message)]
    (violation,) = trace_cases.violations(model, CODE)
    assert (violation.fix.title, violation.fix.safety.value) == (
        "call kbitlint.fix(model) in place of prepare_model_for_kbit_training",
        "display",
    )


def test_it_costs_what_the_rule_says():
    saved = trace(peft_prepared(), trace_cases.NO_AUTOCAST).saved_bytes

    assert saved > 1.1 * trace(trace_cases.adapted(), trace_cases.NO_AUTOCAST).saved_bytes


def test_norms_that_promote_the_stream_are_named_and_fixed():
    """GPT-NeoX adds what its norms feed to the stream; under CUDA's autocast a norm gives float32 anyway."""
    model = tiny.with_lora(tiny.load("gpt2 (Conv1D)"))
    norm = tiny.adapters_base(model).transformer.h[0]

    def widen(module, args, output):
        return output.float() if torch.is_tensor(output) else (output[0].float(), *output[1:])  # a tuple in transformers 4

    norm.register_forward_hook(widen)
    (violation,) = trace_cases.violations(model, CODE)

    assert violation.at.path == "transformer.h.0"
    assert violation.message.startswith("the residual stream turns float32: 2 of 2 layers pass on float32")
    assert violation.fix is None


def test_a_norm_in_the_stream_that_gives_float32_is_the_origin():
    class Promoting(torch.nn.RMSNorm):
        def forward(self, value):
            return torch.nn.functional.rms_norm(value.float(), self.normalized_shape, self.weight, self.eps)

    class Stream(torch.nn.Module):
        """A layer whose output is its norm's."""

        def __init__(self, layer):
            super().__init__()
            self.layer, self.norm = layer, Promoting(64, dtype=torch.float32)
            self.attention_type = "full_attention"

        def forward(self, *args, **kwargs):
            return self.norm(self.layer(*args, **kwargs))

    model = tiny.prepared()
    model.model.layers[0] = Stream(model.model.layers[0])
    adapted = tiny.with_lora(model)
    (violation,) = trace_cases.violations(adapted, CODE)

    assert (violation.at.path, violation.message.split(":")[0]) == ("model.layers.0.norm", "Promoting gives float32")
    kbitlint.fix(adapted, select=CODE, context=trace_cases.NO_AUTOCAST)
    assert trace_cases.trace_findings(adapted, CODE) == []


def test_the_stream_of_a_fixed_model_is_clean_with_and_without_autocast():
    model = trace_cases.adapted()

    assert trace_cases.trace_findings(model, CODE) == []
    assert trace_cases.trace_findings(model, CODE, TrainingContext(autocast_dtype="bfloat16")) == []


def test_a_model_that_computes_in_float32_is_skipped():
    model = tiny.load(dtype=torch.float32, compute=torch.float32)

    assert trace_cases.skipped(model, CODE) == ["no quantized layer is known to compute in half precision"]


class Narrowing(nn.Module):
    """A layer that returns half precision for any input."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(48, 48)

    def forward(self, hidden):
        return self.linear(hidden).to(torch.bfloat16)


class WideBetweenLayers(nn.Module):
    """Its own code casts to float32 between two layers, and no layer gives float32."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Narrowing(), Narrowing()])

    def forward(self, x):
        return self.layers[1](self.layers[0](x).float())


def test_a_stream_that_turns_float32_between_layers_is_found_at_the_next_one():
    model = quantized(WideBetweenLayers().to(torch.bfloat16))
    model = get_peft_model(model.requires_grad_(requires_grad=False), LoraConfig(r=4, target_modules=["linear"]))

    report = kbitlint.check(model, context=trace_cases.NO_AUTOCAST, select=CODE)

    assert report.crashes == ()
    assert [(violation.at.path, violation.message) for violation in report.violations] == [
        (
            "layers.1",
            "the residual stream turns float32: 1 of 2 layers pass on float32 while quantized layers compute in bfloat16",
        )
    ]
