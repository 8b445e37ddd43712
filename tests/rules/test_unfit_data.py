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


COLLATED = (
    "from transformers import AutoTokenizer, DataCollatorForLanguageModeling\ntok = AutoTokenizer.from_pretrained({!r})\n"
)
USED = "labels = dataset.map(tok)\ncollator = DataCollatorForLanguageModeling({})\n"


@pytest.mark.parametrize(
    ("checkpoint", "given", "code"),
    [
        ("EleutherAI/gpt-neox-20b", "tok", "KB561"),
        ("EleutherAI/gpt-neox-20b", "tok, mlm=True", "KB561"),
        ("EleutherAI/gpt-neox-20b", "tok, mlm=False", None),
        ("EleutherAI/gpt-neox-20b", "tok, False", None),
        ("EleutherAI/gpt-neox-20b", "tok, **given", None),
        ("google/gemma-2b", "tok", "KB730"),
        ("someone/with-a-mask", "tok", None),
    ],
)
def test_a_collator_masks_tokens_by_default(checkpoint, given, code):
    body = LOADED + COLLATED.format(checkpoint) + USED.format(given)

    assert [one for one in ("KB561", "KB730") if findings(one, body)] == ([code] if code else [])


def test_tokenizers_without_a_mask_token_raise_and_those_with_one_have_it_by_their_class():
    import inspect

    import transformers

    classes = ("LlamaTokenizer", "GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "CodeGenTokenizer")
    given = [inspect.signature(getattr(transformers, name)).parameters for name in ("GemmaTokenizer", "CohereTokenizer")]

    assert [str(one["mask_token"].default) for one in given] == ["<mask>", "<MASK_TOKEN>"]
    for name in classes:
        with pytest.raises(ValueError, match="does not have a mask token"):
            transformers.DataCollatorForLanguageModeling(getattr(transformers, name)())
