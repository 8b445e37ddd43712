"""Collators that mask tokens, in a script that trains a decoder, read from the text."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint import lazy_patterns as re
from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import is_constant, is_open, keyword, last

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings

#: decoders whose tokenizer has no mask token: neither its class in transformers 5 nor its ``tokenizer_config.json`` names one
_MASKLESS = re.compile(
    r"(meta-llama/|huggyllama/llama|codellama/|TinyLlama/|openlm-research/open_llama|lmsys/vicuna|mistralai/Mi[sx]tral"
    r"|HuggingFaceH4/zephyr|Qwen/Qwen[123]|EleutherAI/(pythia|gpt-neo|gpt-j)|(openai-community/)?gpt2|facebook/opt-"
    r"|bigscience/bloom|tiiuae/falcon|microsoft/[Pp]hi-|bigcode/starcoder|01-ai/Yi|HuggingFaceTB/SmolLM)"
)
#: decoders whose tokenizer has one by its class: ``models/gemma/tokenization_gemma.py``, ``models/cohere``
_MASKED = re.compile(r"(google/(gemma|codegemma)-|CohereForAI/|CohereLabs/)")


def masked(names: Bindings, text: str) -> Iterator[DataUse]:
    """Yield each collator that masks tokens for a decoder; none in a script that loads another kind of model."""
    if "mask_token" in text or "AutoModelForCausalLM" not in text or "AutoModelForMaskedLM" in text:
        return
    for call in names.calls:
        if names.full(call.func) != "transformers.DataCollatorForLanguageModeling" or is_open(call):
            continue
        mlm = keyword(call, "mlm") or (call.args[1] if len(call.args) > 1 else ast.Constant(value=True))
        given = keyword(call, "tokenizer") or (call.args[0] if call.args else None)
        made, _ = names.value(given)
        if not is_constant(mlm, value=True) or not isinstance(made, ast.Call) or last(made) != "from_pretrained":
            continue
        name, _ = names.value(made.args[0]) if made.args else (keyword(made, "pretrained_model_name_or_path"), 0)
        checkpoint = name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else ""
        if _MASKLESS.match(checkpoint):
            yield DataUse("masked without a token", call.lineno, checkpoint)
        elif _MASKED.match(checkpoint):
            yield DataUse("labels of masked tokens", call.lineno)
