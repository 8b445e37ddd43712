"""Models that a trainer is given beside the one that it trains: a reference, a teacher."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.upstream.families import facts_of
from kbitlint.upstream.geometries import vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.source.kinds.kind import Kind

#: trainers of TRL that refuse their own model as the reference: ``trl/trainer/dpo_trainer.py`` and others, from 0.12 on
_REFERRING = frozenset(f"trl.{name}Trainer" for name in ("DPO", "KTO", "BCO", "OnlineDPO", "XPO", "NashMD"))
#: trainers that compare each token's probabilities with those of a teacher: ``trl/experimental/gkd/gkd_trainer.py``
_TAUGHT = frozenset(("trl.GKDTrainer",))
#: trainers that take a model for a reward function: ``trl/trainer/grpo_trainer.py``, _calculate_rewards
_JUDGED = frozenset(("trl.GRPOTrainer", "trl.RLOOTrainer", "trl.OnlineDPOTrainer"))


def partner_faults(
    callee: str, given: Mapping[str, tuple[Kind | None, ast.expr]], text: str
) -> Iterator[tuple[str, ast.expr, str]]:
    """Yield what is wrong with the other models of a trainer: (parameter, expression, why).

    Args:
        callee: The trainer.
        given: Its arguments by name, each with its kind.
        text: The text of the script.
    """
    kind, model = given.get("model", (None, None))
    _, reference = given.get("ref_model", (None, None))
    if callee in _REFERRING and isinstance(model, ast.Name) and isinstance(reference, ast.Name) and model.id == reference.id:
        yield "ref_model", reference, "is the model itself, and must be another object or None"
    taught, teacher = given.get("teacher_model", (None, None))
    if callee in _TAUGHT and kind is not None and taught is not None and teacher is not None and "resize" not in text:
        own, other = (vocabulary_of(facts_of(one.text)) if one.text else 0 for one in (kind, taught))
        if own and other and own != other:
            yield "teacher_model", teacher, f"has {other} tokens in its vocabulary, and the model {own}: they must agree"
    judge, rewards = given.get("reward_funcs", (None, None))
    if (
        callee in _JUDGED
        and judge is not None
        and rewards is not None
        and judge.source == "AutoModelForCausalLM.from_pretrained"
    ):
        yield "reward_funcs", rewards, "is a causal language model, and must be a classifier with one label, or a function"
