from __future__ import annotations

import checkpoint_cases
import plants
import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from script_cases import ADAPTED, LOADED, PREPARED, findings

import kbitlint

CODE = "KB123"
Q_PROJ = "model.layers.0.self_attn.q_proj"


def found(model):
    return {v.at.path: v.message.partition(": ")[2] for v in kbitlint.check(model, select=CODE).violations}


def stored(dtype=torch.bfloat16):
    return tiny.load(bnb_4bit_quant_storage=dtype)


def test_weights_as_they_are_packed_are_not_flagged():
    for model in (
        tiny.load(),
        tiny.load(kind="int8"),
        stored(),
        stored(torch.float32),
        tiny.load(bnb_4bit_use_double_quant=True),
    ):
        assert found(model) == {}
    assert found(tiny.with_lora(prepare_model_for_kbit_training(stored()))) == {}
    assert found(tiny.load("gpt2 (Conv1D)")) == found(tiny.load("gpt2 (Conv1D)", kind="int8")) == {}


@pytest.mark.parametrize("cast", ["float16", "float32"])
def test_a_cast_of_bytes_that_pose_as_numbers_destroys_every_weight(cast):
    model = tiny.with_lora(stored())
    loss = tiny.step(model).loss
    model.to(getattr(torch, cast))

    message = f"its bytes were packed as bfloat16 and then cast to {cast} as if they were numbers"
    assert found(model) == {f"{path}.base_layer": message for path in plants.QUANTIZED}
    step = tiny.step(model)
    assert step.error is not None or step.loss != pytest.approx(loss, abs=1e-3)


def test_a_cast_of_a_model_that_is_stored_in_bytes_leaves_them_alone():
    assert found(tiny.with_lora(tiny.load()).to(torch.float16)) == {}


def test_a_state_of_another_weight_is_named():
    model = tiny.load()
    layer = model.model.layers[0]
    layer.self_attn.q_proj.weight.quant_state = layer.mlp.up_proj.weight.quant_state

    assert found(model) == {Q_PROJ: "its state records the shape [128, 64], and the layer has [64, 64]"}
    assert tiny.step(tiny.with_lora(model, target_modules=["k_proj"])).error is not None


def test_a_state_with_another_number_of_blocks_is_named():
    model = tiny.load()
    state = model.model.layers[0].self_attn.q_proj.weight.quant_state
    state.absmax = state.absmax[:32]

    assert found(model) == {Q_PROJ: "its state has 32 block maxima, and 64 blocks"}


def test_fewer_bytes_than_the_shape_takes_are_named():
    model = tiny.load()
    weight = model.model.layers[0].self_attn.q_proj.weight
    weight.data = weight.data[:1024]

    assert found(model) == {Q_PROJ: "it holds 1024 bytes, and 64 x 64 values take 2048"}


def test_row_maxima_of_another_layer_are_named():
    model = tiny.load(kind="int8")
    projection = model.model.layers[0].self_attn.q_proj
    projection.weight.SCB = projection.weight.SCB[:8]

    assert found(model) == {Q_PROJ: "its state has 8 row maxima, and the layer has 64 rows"}


def test_unquantized_models_are_skipped():
    assert kbitlint.check(tiny.load(kind="none"), select=CODE).skips[0].reason == "no layer is quantized"


def test_double_quantization_that_is_recorded_and_not_there_is_named():
    model = tiny.load(bnb_4bit_use_double_quant=True)
    state = model.model.layers[0].self_attn.q_proj.weight.quant_state
    state.absmax = state.absmax.float()

    assert found(model) == {Q_PROJ: "its state records double quantization, and its block maxima are not quantized"}


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_the_scales_of_a_shared_weight_go_to_the_first_layer_that_runs_in_8_bits_only(kind):
    """PEFT's replicated layers share the weights of the layer that they repeat."""
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", layer_replication=[[0, 2], [1, 2]])
    model = get_peft_model(tiny.load(kind=kind), config)
    sizes = {}
    for number in (1, 2):
        layer = model.get_base_model().model.layers[number].self_attn.k_proj
        layer.register_forward_hook(lambda _, __, out, number=number: sizes.update({number: float(out.detach().abs().mean())}))
    told = found(model)

    tiny.step(model)
    assert (sizes[2] > 100 * sizes[1]) == (kind == "int8")
    assert len(told) == (7 if kind == "int8" else 0)
    if told:
        message = "model.layers.1.self_attn.k_proj shares it, and takes its row maxima in the first forward pass"
        assert told["model.layers.2.self_attn.k_proj"] == message


EVERY = "for p in model.parameters():\n    p.data = p.data.to(torch.bfloat16)\n"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + EVERY, id="of the base"),
        pytest.param(LOADED + PREPARED + ADAPTED + EVERY.replace("to(torch.bfloat16)", "half()"), id="of the PeftModel"),
        pytest.param(LOADED + EVERY.replace("for p in model.", "for _, p in model.named_"), id="by name"),
        pytest.param(
            "def cast(net):\n    for p in net.parameters():\n        p.data = p.to(torch.float32)\n" + LOADED + "cast(model)\n",
            id="in a function",
        ),
    ],
)
def test_a_loop_over_all_parameters_casts_the_packed_bytes(script):
    ((severity, line, message),) = findings(CODE, script)

    assert (severity, line.split()[0]) == ("error", "p.data")
    assert message.endswith("reaches the packed weights, whose bytes become numbers")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + EVERY.replace("    p.data", "    if p.dtype == torch.float32:\n        p.data"), id="some"),
        pytest.param(LOADED + EVERY.replace("p.data.to(torch.bfloat16)", "p.data.to('cuda')"), id="moved"),
        pytest.param(LOADED.replace('"nf4"', '"nf4", bnb_4bit_quant_storage=torch.bfloat16') + EVERY, id="stored so"),
        pytest.param("model = AutoModelForCausalLM.from_pretrained('org/base')\n" + EVERY, id="not packed"),
    ],
)
def test_casts_that_reach_no_packed_byte(script):
    assert findings(CODE, script) == []


def test_a_real_cast_of_every_parameter_stops_the_next_forward_pass():
    model = tiny.load()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)

    with pytest.raises((RuntimeError, AssertionError)):
        model(torch.arange(8)[None])


def scales_of(layer):
    state = layer.weight.quant_state
    return (state.state2.absmax, state.offset) if state.nested else (state.absmax,)


@pytest.mark.parametrize("double", [False, True])
def test_scales_of_zeros_are_a_warning_and_scales_of_nan_an_error(double):
    model = tiny.load(bnb_4bit_use_double_quant=double)
    layer = model.model.layers[0].self_attn.q_proj
    for scales in scales_of(layer):
        scales.zero_()
    (violation,) = kbitlint.check(model, select=CODE).violations

    assert (violation.severity.value, violation.message) == ("warning", ZEROS)
    scales_of(layer)[0].fill_(float("nan"))
    assert found(model) == {Q_PROJ: "its block maxima hold NaN or infinity"}
    assert not tiny.step(tiny.with_lora(model)).arrived


ZEROS = "the packed weight unpacks to zeros only"
BAD = "the packed weight contradicts its record: its scales hold NaN or infinity"


@pytest.mark.parametrize(
    ("bits", "byte", "expected"),
    [
        (4, 0, ("warning", ZEROS)),
        (8, 0, ("warning", ZEROS)),
        (4, 0xFF, ("error", BAD)),
        (8, 0xFF, ("error", BAD)),
        (4, 1, None),
    ],
)
def test_scales_in_a_file_are_read(tmp_path, bits, byte, expected):
    folder = checkpoint_cases.checkpoint(tmp_path, checkpoint_cases.packed("q_proj", bits, byte))

    wanted = [] if expected is None else [(expected[0], "model.safetensors q_proj", expected[1])]
    assert checkpoint_cases.findings(CODE, folder) == wanted
