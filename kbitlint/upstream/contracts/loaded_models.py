"""What the load of a model tells of it, for conditions: its model type, its labels, and whose code it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.values import Value
    from kbitlint.upstream.families import Known

#: words in the names of checkpoints that store labels of their own
_OWN_HEADS = ("reward", "-rm", "rm-", "prm", "judge", "class", "score", "nli", "sentiment", "guard", "rank", "toxic", "emotion")


def remote_of(model: ModelState) -> Value:
    """Return whether the repository of a model may bring code of its own; UNKNOWN without a load."""
    load = model.load
    return UNKNOWN if load is None else load.value("trust_remote_code", False) is not False  # noqa: FBT003  # the default


def type_of(model: ModelState) -> Value:
    """Return the model type of a model that transformers' own code loads; UNKNOWN if it is not known."""
    known = _facts(model)
    return UNKNOWN if known is None else known.model_type or UNKNOWN


def size_of(model: ModelState) -> Value:
    """Return the size in the name of a model that transformers' own code loads; UNKNOWN if it is not known."""
    known = _facts(model)
    return UNKNOWN if known is None else known.size or UNKNOWN


def _facts(model: ModelState) -> Known | None:
    load = model.load
    if load is None or remote_of(model) is not False:
        return None
    from kbitlint.upstream.families import facts_of  # the table of families, for few conditions

    return facts_of(load.value("pretrained_model_name_or_path"), model.named)


def labels_of(model: ModelState) -> Value:
    """Return ``num_labels`` of a model's config: 2, unless the load or the checkpoint gives another number."""
    load = model.load
    if not model.certain or load is None or not load.callee.startswith("transformers.Auto") or not load.complete:
        return UNKNOWN
    if load.argument("num_labels") is not None:
        return load.value("num_labels")
    name = load.value("pretrained_model_name_or_path")
    if any(load.gives(one) for one in ("config", "id2label", "problem_type")) or not isinstance(name, str):
        return UNKNOWN
    from kbitlint.upstream.families import facts_of  # the table of families, for few conditions

    original = not name.startswith((".", "/", "~")) and not any(word in name.lower() for word in _OWN_HEADS)
    return 2 if original and facts_of(name, model.named).family is not None else UNKNOWN


def of_load(name: str, unset: Value) -> Callable[[ModelState], Value]:
    """Return the function that tells an argument of a model's load, with its default."""
    return lambda model: UNKNOWN if model.load is None else model.load.value(name, unset)


#: property of a model -> how its load tells it
OF_LOAD: Mapping[str, Callable[[ModelState], Value]] = {
    "type": type_of,
    "size": size_of,
    "labels": labels_of,
    "remote": remote_of,
    "fast": of_load("fast_inference", False),  # noqa: FBT003  # the default
    "highest_rank": of_load("max_lora_rank", 64),
}
