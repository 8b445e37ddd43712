"""Output heads that a skip list leaves to bitsandbytes, and the error that training then raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.facts.source import Action
from kbitlint.upstream.families import facts_of

if TYPE_CHECKING:
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call

_FOUR = 4


def why_it_fails(source: SourceFacts, config: Call) -> str:
    """Return why a model whose head a config packs raises, as the end of a sentence; empty if it may train."""
    resized = [step for _, steps in source.steps_at(Action.RESIZE) for step in steps if _is_of(step.before, config)]
    if any(step.before.bits == _FOUR and step.detail is None for step in resized):
        return ", and a packed head cannot be resized"
    loads = [step.before for _, steps in source.steps_at(Action.LOAD) for step in steps if _is_of(step.before, config)]
    trainers = {training.call.callee for path in source.paths for training in path.trainings}
    # TRL's loss may read the weight of the head by itself, so that its layer never runs
    if loads and all(map(_is_tied, loads)) and not any(name.startswith("trl.") for name in trainers):
        return ", and a head that is tied to the embeddings is not packed, which its layer refuses"
    return ""


def _is_of(model: ModelState, config: Call) -> bool:
    return model.quantization is not None and model.quantization.span == config.span


def _is_tied(model: ModelState) -> bool:
    """Return whether a causal model or a translator ties its head, by its config or its family."""
    load = model.load
    if load is None or not load.callee.endswith(("CausalLM.from_pretrained", "Seq2SeqLM.from_pretrained")):
        return False
    return facts_of(load.value("pretrained_model_name_or_path"), model.named).tied is True
