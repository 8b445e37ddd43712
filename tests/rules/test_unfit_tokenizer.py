from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

CODE = "KB574"
LLAMA3, MISTRAL = "meta-llama/Meta-Llama-3-8B", "mistralai/Mistral-7B-v0.1"


def tokenizer(name):
    return f"tok = AutoTokenizer.from_pretrained('{name}')\n"


def model(name):
    return LOADED.replace("org/base", name) + PREPARED + ADAPTED


UNKNOWN, PADDED = "tok.pad_token = tok.unk_token\n", "tok('a', padding='max_length')\n"
CHAT = "text = tok.apply_chat_template(messages, tokenize=False)\n"
GIVEN = TRAINED.replace("train_dataset", "processing_class=tok, train_dataset")
ENDED = "SFTTrainer(model, args=SFTConfig('out', eos_token='{}'), processing_class=tok, train_dataset=data)\n"
FORMED = LOADED + (
    "from trl import DataCollatorForCompletionOnlyLM\n"
    "def form(row):\n    return f'### Question: {{row}}\\n ### Answer: {{row}}'\n"
    "mark = '{}'\ncollator = DataCollatorForCompletionOnlyLM(mark, tokenizer=tok)\n"
    "SFTTrainer(model, train_dataset=data, formatting_func=form, data_collator=collator)\n"
)
MARKED = "train_on_responses_only(trainer, instruction_part='{0}user', response_part='{0}assistant')\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (tokenizer(MISTRAL) + CHAT + model(MISTRAL), "has no chat template, and nothing sets one"),
        (tokenizer(MISTRAL) + model(MISTRAL) + "def render(row):\n    " + CHAT, "has no chat template, and nothing sets one"),
        (tokenizer(LLAMA3) + UNKNOWN + PADDED + model(LLAMA3), "has no unknown token, so its padding token becomes None"),
        (
            tokenizer("NousResearch/Llama-2-7b-hf") + model(LLAMA3) + GIVEN,
            "has 32000 tokens, and meta-llama/Meta-Llama-3-8B 128256",
        ),
        (tokenizer(LLAMA3) + ENDED.format("<|im_end|>"), f"<|im_end|> is no token of {LLAMA3}, and nothing adds it"),
        (FORMED.format("### Response:"), "no text that the script writes holds the mark '### Response:'"),
        (model("Qwen/Qwen3-8B") + MARKED.format("<|start_header_id|>"), "the marks are those of Llama 3"),
    ],
)
def test_what_a_tokenizer_lacks(body, said):
    (found,) = findings(CODE, body)

    assert found[0] == "error"
    assert said in found[2]


@pytest.mark.parametrize(
    "body",
    [
        tokenizer(MISTRAL) + "tok.chat_template = template\n" + CHAT + model(MISTRAL),
        tokenizer(MISTRAL) + "model, tok = setup_chat_format(model, tok)\n" + CHAT + model(MISTRAL),
        tokenizer(MISTRAL) + "prepare(tok)\n" + CHAT + model(MISTRAL),
        tokenizer(MISTRAL) + UNKNOWN + PADDED + model(MISTRAL) + GIVEN,
        tokenizer(LLAMA3) + UNKNOWN + "tok.pad_token = tok.eos_token\n" + PADDED + model(LLAMA3),
        tokenizer("meta-llama/Meta-Llama-3-8B-Instruct") + CHAT + model(LLAMA3) + GIVEN,
        tokenizer("Qwen/Qwen3-8B") + model("Qwen/Qwen3-0.6B") + GIVEN + MARKED.format("<|im_start|>"),
        tokenizer("Qwen/Qwen3-8B") + model(LLAMA3) + "model.resize_token_embeddings(len(tok))\n" + GIVEN,
    ],
)
def test_look_alikes(body):
    assert findings(CODE, body) == []


def test_a_real_tokenizer_raises_as_the_rule_says():
    words = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, "a"))
    made = PreTrainedTokenizerFast(tokenizer_object=words)
    made.pad_token = made.unk_token

    with pytest.raises(ValueError, match="padding token"):
        made("a", padding="max_length", max_length=4)
    with pytest.raises(ValueError, match="chat_template is not set"):
        made.apply_chat_template([{"role": "user", "content": "a"}])


def test_an_end_that_the_tokenizer_has_and_a_mark_that_the_texts_have_are_clean():
    assert findings(CODE, tokenizer(LLAMA3) + ENDED.format("<|eot_id|>")) == []
    assert findings(CODE, tokenizer(LLAMA3) + "tok.add_tokens(['<|im_end|>'])\n" + ENDED.format("<|im_end|>")) == []
    assert findings(CODE, tokenizer("org/own") + ENDED.format("<|im_end|>")) == []
    assert findings(CODE, FORMED.format(" ### Answer:")) == []
