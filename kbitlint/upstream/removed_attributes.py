"""Attributes that objects of transformers and TRL no longer have, with the version that removed them.

Attributes of training arguments are their parameters: ``signatures`` has their versions. A test compares all rows with the
installed classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.upstream.objects.returns import TOKENIZER
from kbitlint.upstream.signatures.lookup import refusal
from kbitlint.upstream.versions import number

if TYPE_CHECKING:
    from collections.abc import Mapping

#: classes whose objects have what ``transformers.Trainer`` has, and set no such attribute themselves
TRAINERS = frozenset(
    ("transformers.Trainer", "transformers.Seq2SeqTrainer", *(f"trl.{one}Trainer" for one in ("SFT", "DPO", "GRPO", "Reward")))
)
CONFIGS = frozenset(f"trl.{one}Config" for one in ("SFT", "DPO", "GRPO", "Reward"))
#: attribute -> (first version of transformers without it, its successor; empty if there is none)
OF_TRAINERS: Mapping[str, tuple[str, str]] = {
    "tokenizer": ("5", "processing_class"),
    **dict.fromkeys(("use_apex", "use_cuda_amp", "use_cpu_amp", "do_grad_scaling", "prediction_loop"), ("5.23", "")),
}
#: those of every tokenizer that AutoTokenizer returns. 5.23 is the version that was read: earlier ones may lack them too
OF_TOKENIZERS: Mapping[str, tuple[str, str]] = {
    "additional_special_tokens": ("5.23", "extra_special_tokens"),
    "additional_special_tokens_ids": ("5.23", "extra_special_tokens_ids"),
    "as_target_tokenizer": ("5.23", "text_target"),
    "special_tokens_map_extended": ("5.23", "special_tokens_map"),
    "all_special_tokens_extended": ("5.23", "all_special_tokens"),
    "sanitize_special_tokens": ("5.23", ""),
    "max_len": ("5.23", "model_max_length"),
    "default_chat_template": ("5.23", "chat_template"),
    "max_model_input_sizes": ("5.23", "model_max_length"),
    "batch_encode_plus": ("5.23", "__call__"),
    "encode_plus": ("5.23", "__call__"),
}


def removed_attribute(owner: str, name: str, versions: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the version since which an object lacks an attribute, and the successor; None if it has it, or is not known."""
    if owner.endswith("TrainingArguments") or owner in CONFIGS:
        keyword = refusal(owner, name, versions)
        if keyword is None or not keyword.until:
            return None
        return f"{keyword.library} {keyword.until}", keyword.replacement
    rows = OF_TOKENIZERS if owner == TOKENIZER else OF_TRAINERS if owner in TRAINERS else {}
    found = rows.get(name)
    if found is None or number(versions.get("transformers", "")) < number(found[0]):
        return None
    return f"transformers {found[0]}", found[1]
