from __future__ import annotations

import pytest
from script_cases import IMPORTS, LOADED, OLD, findings

CODE = "KB561"
IDS = "def ids(row):\n    return {'input_ids': tokenizer.apply_chat_template(row['messages'])}\n"
MAPPED = "tokenizer = AutoTokenizer.from_pretrained('m')\ndata = dataset.map(ids)\n"
ENCODING = (
    "apply_chat_template returns a BatchEncoding since transformers 5, and it is used as a list of token ids: this raises"
)


@pytest.mark.parametrize(("versions", "found"), [({}, [("error", "tokenizer.apply_chat_template", ENCODING)]), (OLD, [])])
def test_token_ids_are_an_encoding_since_transformers_5(versions, found):
    body = LOADED + IDS + MAPPED
    given = {"versions": versions} if versions else {}

    said = findings(CODE, body, **given)

    assert [(severity, message) for severity, _, message in said] == [(severity, message) for severity, _, message in found]
    assert all("apply_chat_template" in line for _, line, _ in said)


def test_a_script_without_a_model_of_few_bits_is_not_followed():
    assert findings(CODE, IDS + MAPPED, imports=IMPORTS.replace("peft", "other").replace("BitsAndBytesConfig, ", "")) == []
