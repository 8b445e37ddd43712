from __future__ import annotations

import pytest
from stored import BNB, checkpoint, floats, packed, said, skipped

FOUR, EIGHT = packed("layers.0.q_proj"), packed("layers.0.q_proj", 8)


def without(tensors, *names):
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(names)}


@pytest.mark.parametrize(
    ("tensors", "missing"),
    [
        (without(FOUR, "absmax"), "absmax"),
        (without(FOUR, "quant_map"), "quant_map"),
        (without(FOUR, "nf4"), "quant_state"),
        (without(FOUR, "absmax", "quant_map", "nf4"), "absmax, quant_map, quant_state"),
        (FOUR | {"layers.0.q_proj.weight.nested_absmax": ("F32", (1,))}, "nested_quant_map"),
        (without(EIGHT, "SCB"), "SCB"),
    ],
)
def test_a_weight_without_what_unpacks_it(tmp_path, tensors, missing):
    assert said("KB822", checkpoint(tmp_path, tensors, BNB)) == [
        ("error", "model.safetensors layers.0.q_proj", f"a packed weight is stored without its {missing}")
    ]


@pytest.mark.parametrize("tensors", [without(FOUR, "q_proj.weight"), without(EIGHT, "q_proj.weight")])
def test_a_state_without_its_weight(tmp_path, tensors):
    assert said("KB822", checkpoint(tmp_path, tensors, BNB)) == [
        ("error", "model.safetensors layers.0.q_proj", "a quantization state is stored without its weight")
    ]


@pytest.mark.parametrize("tensors", [FOUR, EIGHT, floats("layers.0.q_proj"), {"a.weight": ("U8", (4, 2))}])
def test_look_alikes(tmp_path, tensors):
    assert said("KB822", checkpoint(tmp_path, tensors, BNB)) == []


def test_what_is_not_here_is_not_judged(tmp_path):
    folder = checkpoint(tmp_path, FOUR, BNB)
    (folder / "broken.safetensors").write_bytes(b"")

    assert skipped("KB822", folder) == ["not all safetensors headers are here"]
    assert skipped("KB822", checkpoint(tmp_path / "bare", None)) == ["no safetensors headers here"]
