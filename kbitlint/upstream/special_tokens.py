"""Special tokens of the tokenizers of well-known families, with their ids.

Source of each row: the ``tokenizer_config.json`` of the family on the Hub.

Rehearsals need them, and scripts that ask for padding.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from kbitlint import lazy_patterns as re
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.upstream.families import Known


@dataclass(frozen=True, slots=True)
class Words:
    """The special tokens of a family's tokenizer, each with its id."""

    size: int
    """How many tokens the tokenizer knows. The embedding may have more rows."""
    bos: tuple[str, int] | None = None
    eos: tuple[str, int] | None = None
    pad: tuple[str, int] | None = None
    unk: tuple[str, int] | None = None
    others: Mapping[str, int] = field(default_factory=dict)
    """Further special tokens, such as those of classifiers: ``[CLS]``."""
    longest: int = 4096
    """``model_max_length``."""


_QWEN = Words(
    151665, None, ("<|endoftext|>", 151643), ("<|endoftext|>", 151643), None, {"<|im_start|>": 151644, "<|im_end|>": 151645}
)
_END = ("<|endoftext|>", 0)
_GPT2 = ("<|endoftext|>", 50256)
#: model type -> its tokens; the size of decoders of Llama's kind is that of the family's vocabulary
_OF_TYPE: dict[str, Words] = {
    "qwen2": _QWEN,
    "qwen3": _QWEN,
    "gemma": Words(256000, ("<bos>", 2), ("<eos>", 1), ("<pad>", 0), ("<unk>", 3)),
    "gemma2": Words(256000, ("<bos>", 2), ("<eos>", 1), ("<pad>", 0), ("<unk>", 3)),
    "gemma3_text": Words(262144, ("<bos>", 2), ("<eos>", 1), ("<pad>", 0), ("<unk>", 3)),
    "gemma3": Words(262144, ("<bos>", 2), ("<eos>", 1), ("<pad>", 0), ("<unk>", 3)),
    "gpt2": Words(50257, _GPT2, _GPT2, None, _GPT2, longest=1024),
    "gpt_neox": Words(50277, _END, _END, None, _END, longest=2048),
    "phi": Words(50295, _GPT2, _GPT2, None, _GPT2, longest=2048),
    "phi3": Words(32011, ("<s>", 1), ("<|endoftext|>", 32000), ("<|endoftext|>", 32000), ("<unk>", 0)),
    "opt": Words(50265, ("</s>", 2), ("</s>", 2), ("<pad>", 1), ("</s>", 2), longest=2048),
    "bloom": Words(250680, ("<s>", 1), ("</s>", 2), ("<pad>", 3), ("<unk>", 0), longest=2048),
    "falcon": Words(65024, None, ("<|endoftext|>", 11), None, None, longest=2048),
    "bert": Words(30522, None, None, ("[PAD]", 0), ("[UNK]", 100), {"[CLS]": 101, "[SEP]": 102, "[MASK]": 103}, 512),
    "distilbert": Words(30522, None, None, ("[PAD]", 0), ("[UNK]", 100), {"[CLS]": 101, "[SEP]": 102, "[MASK]": 103}, 512),
    "roberta": Words(50265, ("<s>", 0), ("</s>", 2), ("<pad>", 1), ("<unk>", 3), {"<mask>": 50264}, 512),
    "t5": Words(32100, None, ("</s>", 1), ("<pad>", 0), ("<unk>", 2), longest=512),
}
_CHAT = re.compile(r"instruct|chat|(^|[-_])it([-_]|$)|zephyr|hermes|vicuna|distill|qwen|smollm.*instruct")

#: published checkpoints whose ``tokenizer_config.json`` and ``special_tokens_map.json`` have no ``pad_token``.
#: GPT-NeoX and Mistral are left out: transformers 5 gives the first a token, and mistral-common the second.
_PADLESS = re.compile(
    r"(meta-llama/(Meta-)?Llama-(2-\d+b|3(\.[123])?-\d+B)(-chat)?(-Instruct)?(-hf)?"
    r"|(openai-community/)?gpt2(-medium|-large|-xl)?|(distilbert/)?distilgpt2"
    r"|tiiuae/falcon-(7b|40b)|microsoft/phi-(2|1_5))"
)


def lacks_pad(name: object) -> bool:
    """Return whether a checkpoint's tokenizer certainly comes without a padding token. Unknown names count as having one."""
    return isinstance(name, str) and _PADLESS.fullmatch(name) is not None


#: published checkpoints -> end and start tokens of other families, which their tokenizers do not have
_LACKED: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (
        re.compile(r"(meta-llama|unsloth|NousResearch)/(Meta-)?Llama-3(\.\d)?-\d+B(-Instruct)?(-bnb-4bit)?"),
        ("</s>", "<s>", "<eos>"),
    ),
    (re.compile(r"(Qwen|unsloth)/Qwen(1\.5|2|2\.5|3)-[\d.]+B(-Instruct|-Chat|-Base)?(-bnb-4bit)?"), ("</s>", "<s>", "<eos>")),
    (
        re.compile(r"(meta-llama/Llama-2-\d+b(-chat)?(-hf)?|mistralai/Mistral-7B-(Instruct-)?v0\.\d)"),
        ("<|endoftext|>", "<|eot_id|>", "<|im_end|>", "<eos>"),
    ),
)


def tokens_it_lacks(name: str) -> tuple[str, ...]:
    """Return end and start tokens of other families that a published checkpoint's tokenizer has not; empty if unknown."""
    return next((tokens for names, tokens in _LACKED if names.fullmatch(name)), ())


#: published base checkpoints whose ``tokenizer_config.json`` has no ``chat_template``, and that have no file of one
_TEMPLATELESS = re.compile(
    r"(mistralai/(Mistral-7B-v0\.[13]|Mixtral-8x7B-v0\.1)|google/gemma-(2-)?\d+b|bigcode/starcoder2-\d+b|meta-llama/(Meta-)?Llama-(2-\d+b(-hf)?|3(\.[12])?-\d+B)"
    r"|NousResearch/(Llama-2-\d+b-hf|Meta-Llama-3(\.1)?-8B)|huggyllama/llama-\d+b|tiiuae/falcon-(7b|40b)|facebook/opt-[\w.]+"
    r"|bigscience/bloom(z)?(-\w+)?|EleutherAI/(pythia-[\w.-]+|gpt-j-6b|gpt-neox-20b|gpt-neo-[\w.]+)|microsoft/phi-(2|1_5)"
    r"|01-ai/Yi-(6B|9B|34B)|(openai-community/)?gpt2(-medium|-large|-xl)?|(distilbert/)?distilgpt2|TinyLlama/TinyLlama-1\.1B-intermediate[\w.-]+)"
)


def lacks_template(name: object) -> bool:
    """Return whether a checkpoint's tokenizer certainly comes without a chat template. Unknown names count as having one."""
    return isinstance(name, str) and _TEMPLATELESS.fullmatch(name) is not None


def tokens_of(known: Known) -> Words:
    """Return the special tokens of a checkpoint's tokenizer. A family without a row has those of Llama 2, in its own size."""
    family, kind = known.family, known.model_type or (known.family.word if known.family is not None else "")
    own = _OF_TYPE.get(kind)
    if own is not None and family is not None and own is not _OF_TYPE.get("phi3"):
        return own
    if own is not None and family is not None and family.vocabulary == 32064:
        return own
    rows = family.vocabulary if family is not None and family.vocabulary else 32000
    if 128000 < rows <= 128300:
        return Words(128256, ("<|begin_of_text|>", 128000), ("<|end_of_text|>", 128001), longest=131072)
    if family is not None and family.word.startswith("smollm"):
        return Words(rows, _END, _END, None, _END, longest=8192)
    return Words(rows, ("<s>", 1), ("</s>", 2), None, ("<unk>", 0))


def has_chat_template(name: str) -> bool:
    """Return whether a checkpoint's name is that of a chat model. Base models of most families have no chat template."""
    return bool(_CHAT.search(name.lower()))


#: a chat template: the mark by which it is recognised, and words of checkpoints and of unsloth's names that have it
_TEMPLATES: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "Llama 3": ("<|start_header_id|>", re.compile(r"llama-?3(?!.*vision)")),
    "ChatML": ("<|im_start|>", re.compile(r"qwen-?(1\.5|2|2\.5|3)|chatml|smollm|hermes")),
    "Gemma": ("<start_of_turn>", re.compile(r"gemma-?[23]?($|[-_])")),
    "Mistral": ("[INST]", re.compile(r"mistral-7b-instruct|mixtral.*instruct|^mistral$|llama-?2.*chat|^llama$")),
    "Phi 3": ("<|assistant|>", re.compile(r"phi-?3|zephyr|tinyllama.*chat")),
}

#: chat templates that write the first token of a sequence, which their tokenizers add too
STARTED = ("Llama 3", "Gemma", "Mistral")


def template_of_name(name: str) -> str:
    """Return the chat template that a checkpoint of this name, or unsloth's template of this name, has; empty if unknown."""
    plain = name.lower().rpartition("/")[2]
    found = [title for title, (_, words) in _TEMPLATES.items() if words.search(plain)]
    return found[0] if len(found) == 1 and "distill" not in plain else ""


#: words for templates in LLaMA-Factory and ms-swift that are no names of checkpoints
_WORDS = {"qwen": "ChatML", "yi": "ChatML", "llama2": "Mistral", "llama": "Mistral"}


def template_of_word(word: str) -> str:
    """Return the chat template that a training program calls by a word; empty if it is none of the known ones.

    >>> template_of_word("llama2"), template_of_word("qwen3_nothink"), template_of_word("default")
    ('Mistral', 'ChatML', '')
    """
    return _WORDS.get(word) or template_of_name(word)


def template_of_marks(mark: str) -> str:
    """Return the chat template to which a mark before a turn belongs; empty if it belongs to none of the known ones."""
    return next((title for title, (sign, _) in _TEMPLATES.items() if sign in mark), "")
