"""Heads of task classes of transformers: their names, and the checkpoints in which PEFT finds them."""

from __future__ import annotations

from kbitlint import lazy_patterns as re

#: the names of the heads of each kind of class, and the task types for which PEFT trains a copy of them
HEADS = {
    "ForTokenClassification": (("classifier", "score"), ("TOKEN_CLS", "SEQ_CLS")),
    "ForSequenceClassification": (("classifier", "score", "pre_classifier", "pooler"), ("TOKEN_CLS", "SEQ_CLS")),
    "ForQuestionAnswering": (("qa_outputs",), ("QUESTION_ANS",)),
}


#: calls that attach adapters and train no copy of a head because of the task type (PEFT 0.21, peft_model.py, mapping.py)
HEADLESS = ("add_adapter", "peft.PeftModel", "peft.inject_adapter_in_model")


def head_kind(callee: str) -> str | None:
    """Return the kind of a class or of a call on one, a key of ``HEADS``; None for a class without such a head."""
    return next((kind for kind in HEADS if kind in callee), None)


#: published names of checkpoints whose sequence classifiers have a bias
BIASED = re.compile(
    r"(google-bert/|FacebookAI/|distilbert/|albert/)?(bert|roberta|xlm-roberta|distilbert|albert)-[\w-]+"
    r"|microsoft/m?deberta-[\w-]+|google/(electra|mobilebert|bigbird|canine|fnet)-[\w-]+|answerdotai/ModernBERT-\w+"
)
#: models without ``qa_outputs``, in which PEFT's task type finds no head to copy
OTHER_ANSWERS = re.compile("modernbert", re.IGNORECASE)
