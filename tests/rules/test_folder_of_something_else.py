from __future__ import annotations

from script_cases import LOADED, findings

CODE = "KB583"
ADAPTED = """\
from peft import LoraConfig, PeftModel, get_peft_model
adapted = get_peft_model(model, LoraConfig(r=8))
adapted.load_adapter("other", adapter_name="other")
adapted.set_adapter({!r})
adapted.save_pretrained("both")
"""


def test_an_adapter_that_is_not_there_is_an_error():
    found = findings(CODE, LOADED + ADAPTED.format("others"))

    assert found == [("error", "adapted.set_adapter('others')", "the model has no adapter others: it raises a ValueError")]
    assert findings(CODE, LOADED + ADAPTED.format("other")) == []
