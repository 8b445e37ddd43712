from __future__ import annotations

import pytest
import tiny
import torch
import trace_cases
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, flagged_lines

import kbitlint

CODE = "KB306"
REFUSED = "Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode in computation"
TRAINABLE = "a trainable parameter was created under inference mode"
NEEDED = "a tensor created under inference mode is needed for the backward pass"


def recreated(model, *names):
    """The model, with the parameters of these names created anew under inference mode."""
    for path, parameter in list(model.named_parameters()):
        if any(name in path for name in names):
            owner, _, name = path.rpartition(".")
            with torch.inference_mode():
                made = torch.nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
            model.get_submodule(owner)._parameters[name] = made
    return model


def real(model):
    """What a real training step raises, with its optimizer."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step = tiny.step(model)
    if step.error is not None:
        return step.error
    try:
        torch.optim.AdamW(trainable).step()
    except RuntimeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize(
    ("name", "at"),
    [("lm_head", "lm_head"), ("input_layernorm", "model.layers.0.input_layernorm"), ("model.norm", "model.norm")],
)
def test_a_frozen_tensor_that_the_backward_pass_needs_is_an_error_as_in_the_real_step(name, at, checkpoints):
    model = recreated(trace_cases.adapted(), name)
    if checkpoints:
        tiny.adapters_base(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    told = trace_cases.trace_findings(model, CODE)
    if name == "input_layernorm":  # the first one's input requires no gradient
        told = [(path.replace("layers.1", "layers.0"), *rest) for path, *rest in told]
    assert told == [(at, "error", NEEDED)]
    assert real(model).startswith(REFUSED)
    assert [
        v.code for v in kbitlint.check(model, context=trace_cases.NO_AUTOCAST).violations if v.severity.value == "error"
    ] == [CODE]


def test_trainable_tensors_are_errors_as_in_the_real_step():
    model = recreated(trace_cases.adapted(r=4), "q_proj.lora_A", "v_proj.lora_B")

    paths = [f"model.layers.{n}.self_attn.{name}.default.weight" for n in (0, 1) for name in ("q_proj.lora_A", "v_proj.lora_B")]
    assert [row for row in trace_cases.trace_findings(model, CODE) if row[2] == TRAINABLE] == [
        (path, "error", TRAINABLE) for path in paths
    ]
    assert real(model).startswith(REFUSED)


def test_a_parameter_that_only_the_optimizer_fails_at():
    model = trace_cases.adapted()
    tiny.adapters_base(model).model.embed_tokens.weight.requires_grad_(True)
    recreated(model, "embed_tokens")

    assert trace_cases.trace_findings(model, CODE) == [("model.embed_tokens.weight", "error", TRAINABLE)]
    assert "Inplace update to inference tensor" in real(model)


def test_a_model_that_is_built_under_inference_mode_is_an_error():
    with torch.inference_mode():
        model = tiny.with_lora(tiny.load())
    told = trace_cases.trace_findings(model, CODE)

    assert {message for _, _, message in told} == {TRAINABLE}
    assert [path for path, _, _ in told] == sorted(v for v in {path for path, _, _ in told})
    assert len(told) == 28
    assert real(model) is not None
    with pytest.raises(AssertionError, match="KB306"):
        kbitlint.assert_ready(model, fail_on="error")


def test_without_a_step_only_what_trains_is_reported():
    model = recreated(trace_cases.adapted(), "lm_head", "layers.0.self_attn.q_proj.lora_A")
    report = kbitlint.check(model, select=CODE, trace=False)

    assert tiny.codes(report) == {(CODE, "model.layers.0.self_attn.q_proj.lora_A.default.weight")}


def test_look_alikes_train():
    with torch.no_grad():
        ungraded = tiny.with_lora(tiny.prepared())
    embedding = recreated(trace_cases.adapted(), "embed_tokens")
    packed = trace_cases.adapted()
    for module in packed.modules():
        if type(module).__name__ == "Linear4bit" and hasattr(module.weight, "quant_state"):
            with torch.inference_mode():
                module.weight.data = module.weight.data.clone()

    for model in (ungraded, embedding, packed, trace_cases.adapted()):
        assert trace_cases.trace_findings(model, CODE) == []
        assert real(model) is None


@pytest.mark.parametrize(
    ("header", "flagged"),
    [("with torch.inference_mode():", True), ("with torch.no_grad():", False), ("with torch.inference_mode(False):", False),
     ("if True:", False)],
)  # fmt: skip
def test_a_script_that_loads_under_inference_mode(header, flagged):
    quantization, load = LOADED.splitlines()
    body = f"{quantization}\n{header}\n    {load}\n" + PREPARED + ADAPTED + TRAINED

    assert flagged_lines("KB306", body) == ([("error", load)] if flagged else [])


def test_a_function_with_the_decorator():
    quantization, load = LOADED.splitlines()
    body = f"@torch.inference_mode()\ndef load():\n    {quantization}\n    {load}\n    return model\nmodel = load()\n"

    assert flagged_lines("KB306", body + PREPARED + ADAPTED + TRAINED) == [("error", load)]
    assert flagged_lines("KB306", body.replace("@torch.inference_mode()\n", "") + PREPARED + ADAPTED + TRAINED) == []


def test_a_preparation_casts_every_weight_of_a_model_that_is_not_packed():
    load = "    model = AutoModelForCausalLM.from_pretrained('org/base', dtype=torch.bfloat16)\n"
    body = f"with torch.inference_mode():\n{load}"

    assert flagged_lines("KB306", body + PREPARED + ADAPTED + TRAINED) == []
    assert flagged_lines("KB306", body + ADAPTED + TRAINED) == [("error", load.strip())]
