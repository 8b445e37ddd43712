"""Tokenizers and processors: the real one where it is at hand, else a tokenizer of bytes with the family's special tokens."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.rehearsal.inside.artefacts import NotAtHandError
from kbitlint.rehearsal.inside.imports import replace
from kbitlint.upstream.checkpoints import checkpoint_of
from kbitlint.upstream.special_tokens import Words, has_chat_template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.rehearsal.inside.record import Record

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_NONE: dict[str, str] = {}
_SPECIAL = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def install(record: Record, transformers: Any) -> None:
    """Let ``from_pretrained`` of tokenizers and processors return a stand-in where the real one is not at hand."""
    auto = transformers.models.auto.tokenization_auto.AutoTokenizer
    replace(auto, "from_pretrained", lambda original: _loading(record, original))
    base = transformers.tokenization_utils_base.PreTrainedTokenizerBase
    replace(base, "from_pretrained", lambda original: _loading(record, original))
    processor = transformers.models.auto.processing_auto.AutoProcessor
    names = transformers.models.auto.processing_auto.PROCESSOR_MAPPING_NAMES
    replace(processor, "from_pretrained", lambda original: _loading(record, original, names))


def _loading(record: Record, original: Any, processors: Mapping[str, str] = _NONE) -> Any:
    """Return a function that loads a tokenizer. ``processors`` are families that have more than one, without a stand-in.

    Raises:
        NotAtHandError: The processor of images or sound is not on this machine.
    """

    def from_pretrained(cls: Any, name: Any, *arguments: Any, **options: Any) -> Any:
        if record.paused:
            return original(cls, name, *arguments, **options)
        known = None if _is_here(str(name)) else checkpoint_of(str(name))
        if known is None:
            with record.pause():
                return original(cls, name, *arguments, **options)
        if record.request.network:
            with record.pause(), contextlib.suppress(OSError, ValueError):
                return original(cls, name, *arguments, **options)
        if known.config.get("model_type") in processors:
            raise NotAtHandError(f"the processor of {name} is not on this machine")
        record.synthetic_words = True
        record.stand_in(f"the tokenizer of {name} (bytes, with its special tokens)")
        chosen = {key: value for key, value in options.items() if key.endswith("_token") or key in _KEPT}
        return stand_in(str(name), known.words, **chosen)

    return from_pretrained


def _is_here(name: str) -> bool:
    """Return whether a folder or the cache has the files of a tokenizer."""
    from huggingface_hub import try_to_load_from_cache  # comes with transformers

    files = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "tokenizer.model", "preprocessor_config.json")
    if Path(name).is_dir():
        return any(Path(name, file).exists() for file in files) or not Path(name, "config.json").exists()
    try:
        return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)
    except ValueError:  # no name of a repository: a path of another machine
        return False


_KEPT = ("padding_side", "truncation_side", "model_max_length", "additional_special_tokens", "add_bos_token", "add_eos_token")


def stand_in(name: str, words: Words, **options: Any) -> Any:
    """Return a tokenizer of bytes with the size and special tokens of a family.

    Args:
        name: The checkpoint's name.
        words: The family's tokens.
        **options: Arguments of ``from_pretrained`` that set tokens and sides.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors  # comes with transformers
    from transformers import PreTrainedTokenizerFast  # takes a second to import

    named = {key: pair for key in ("bos", "eos", "pad", "unk") if (pair := getattr(words, key)) is not None}
    special = dict((*named.values(), *words.others.items()))
    taken = set(special.values())
    free = (number for number in range(words.size) if number not in taken)
    table = dict(special)
    for sign in sorted(pre_tokenizers.ByteLevel.alphabet()):
        table.setdefault(sign, next(free))
    for number in free:
        table[f"<{number}>"] = number
    made = Tokenizer(models.BPE(table, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    frame = _frame(words, options)
    if frame:
        made.post_processor = processors.TemplateProcessing(single=frame[0], pair=frame[1], special_tokens=frame[2])
    tokens: dict[str, Any] = {f"{key}_token": text for key, (text, _) in named.items()}
    tokens |= {key: text for key, text in _SPECIAL.items() if text in words.others}
    given = {"model_max_length": words.longest, **tokens, **options}
    for extra in ("add_bos_token", "add_eos_token"):
        given.pop(extra, None)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **given)
    tokenizer.name_or_path = name
    if has_chat_template(name):
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def _frame(words: Words, options: dict[str, Any]) -> tuple[str, str, list[tuple[str, int]]] | None:
    """Return the templates of one text and of a pair, with their tokens; None if the family adds none."""
    if "[CLS]" in words.others:
        pairs = [("[CLS]", words.others["[CLS]"]), ("[SEP]", words.others["[SEP]"])]
        return "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", pairs
    if "<mask>" in words.others and words.bos and words.eos:
        return "<s> $A </s>", "<s> $A </s> </s> $B </s>", [words.bos, words.eos]
    if words.bos is None and words.eos is not None and words.pad is not None and words.pad[1] == 0:  # T5
        return f"$A {words.eos[0]}", f"$A {words.eos[0]} $B {words.eos[0]}", [words.eos]
    adds_bos = words.bos is not None and words.bos[0] in ("<s>", "<|begin_of_text|>", "<bos>")
    if adds_bos and words.bos is not None and options.get("add_bos_token", True):
        end = f" {words.eos[0]}" if options.get("add_eos_token") and words.eos else ""
        tokens = [words.bos, *([words.eos] if end and words.eos else [])]
        return f"{words.bos[0]} $A{end}", f"{words.bos[0]} $A{end} $B{end}", tokens
    return None
