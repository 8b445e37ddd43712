"""KB540: packed weights that are sent to an inference engine."""

from __future__ import annotations

import pytest
from script_cases import LOADED, flagged_lines

TRAINER = "GRPOTrainer(model=model, reward_funcs=f, args=GRPOConfig('out', use_vllm=True), train_dataset=d)\n"
BODY = "from trl import GRPOConfig, GRPOTrainer\n" + LOADED + TRAINER


@pytest.mark.parametrize(
    ("body", "flagged"),
    [
        (BODY, True),
        (BODY.replace("use_vllm=True", "use_vllm=False"), False),
        (BODY.replace(", use_vllm=True", ""), False),
        (BODY.replace("quantization_config=bnb, ", ""), False),
        (BODY.replace("use_vllm=True", "use_vllm=fast"), False),
    ],
)
def test_a_quantized_model_that_vllm_generates_for_is_reported(body, flagged):
    assert flagged_lines("KB540", body) == ([("error", TRAINER.strip())] if flagged else [])
