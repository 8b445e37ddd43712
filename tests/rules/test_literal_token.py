from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings

from kbitlint.upstream.families import facts_of
from kbitlint.upstream.special_tokens import tokens_it_lacks, tokens_of

CODE = "KB663"


LLAMA3, MISTRAL, QWEN = "meta-llama/Meta-Llama-3-8B", "mistralai/Mistral-7B-v0.1", "Qwen/Qwen2.5-7B-Instruct"
TEXT = "def render(row):\n    return {{'text': {0}}}\n"
ENDS = "f\"{row['a']}</s>\""


def script(name, text, more=""):
    load = f"name = '{name}'\ntok = AutoTokenizer.from_pretrained(name)\n"
    return load + more + TEXT.format(text) + LOADED + PREPARED + ADAPTED + TRAINED


@pytest.mark.parametrize(
    ("name", "text", "token"),
    [
        (LLAMA3, ENDS, "</s>"),
        (LLAMA3, "row['a'] + '</s>'", "</s>"),
        (QWEN, "'<s>{} {}'.format(row['a'], row['b'])", "<s>"),
        (MISTRAL, "'%s %s<|endoftext|>' % (row['a'], row['b'])", "<|endoftext|>"),
    ],
)
def test_a_token_of_another_family_is_plain_text(name, text, token):
    ((severity, _, message),) = findings(CODE, script(name, text))

    assert (severity, message) == ("warning", f"{token} is no token of {name}, whose tokenizer splits it into plain text")


@pytest.mark.parametrize(
    ("name", "text", "more"),
    [
        (MISTRAL, ENDS, ""),
        ("org/base", ENDS, ""),
        (LLAMA3, "row['a'].replace('</s>', '') + tok.eos_token", ""),
        (LLAMA3, ENDS, "tok.add_special_tokens({'eos_token': '</s>'})\n"),
        (LLAMA3, ENDS, "other = AutoTokenizer.from_pretrained('mistralai/Mistral-7B-v0.1')\n"),
    ],
)
def test_a_token_that_the_tokenizer_has_or_may_have(name, text, more):
    assert findings(CODE, script(name, text, more)) == []


@pytest.mark.parametrize("name", [LLAMA3, MISTRAL, QWEN])
def test_no_lacked_token_is_one_of_the_family(name):
    words = tokens_of(facts_of(name))
    own = {one[0] for one in (words.bos, words.eos, words.pad, words.unk) if one is not None} | set(words.others)

    assert tokens_it_lacks(name)
    assert not own & set(tokens_it_lacks(name))
