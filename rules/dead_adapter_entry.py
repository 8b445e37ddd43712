"""Rule KB590: dead-adapter-entry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.runtime.patterns import matches
from kbitlint.upstream.families import facts_of
from kbitlint.upstream.layer_paths import OUTER, OUTER_OF, STACKS, layer_paths, renamed_paths
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts, Step
    from kbitlint.facts.values import Call

_SIGNS = frozenset("*+?[](){}|\\^$")
_RANGE = re.compile(r"(?:list\()?range\((\d{1,3})(?:, ?(\d{1,3}))?\)\)?")


class DeadAdapterEntry(Rule):
    """An entry of an adapter's config that matches nothing in the checkpoint's family.

    ## What it does

    Compares a script's adapter config with the paths of the checkpoint's family, as PEFT does: a regular expression for
    `target_modules`, `layers_to_transform`, `layers_pattern`, and embeddings or heads in `modules_to_save` by the names
    that other families have. KB601 reports lists of targets, and all of them on a model.

    ## Why is this bad?

    If nothing matches, PEFT raises. A layer or a module to save that does not exist is left out without a message.

    ## Example

    `LoraConfig(layers_to_transform=list(range(32, 40)))` for a model with 32 layers.

    ## Fix

    Use the names and the numbers of this model. Layers count from 0.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/peft/issues/1750
    """

    meta: ClassVar[Meta] = Meta(
        code="KB590",
        slug="dead-adapter-entry",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each entry that matches nothing on every path that attaches the config."""
        for config, steps in source.attached():
            found = [set(_dead(source, config, step)) for step in steps]
            for name, what, fails in sorted(set.intersection(*found)) if found and config.callee == "peft.LoraConfig" else ():
                argument = config.argument(name)
                yield self.violation(
                    f"{name} {what}" + (": PEFT raises" if fails else ""),
                    source.at_line(argument.whole.line if argument is not None else config.span.line, name),
                    surface=Surface.SOURCE,
                    severity=Severity.ERROR if fails else None,
                    consequence=Consequence.FAILS if fails else None,
                    fix=Fix("use the names and numbers of this model", Safety.DISPLAY),
                )


def _dead(source: SourceFacts, config: Call, step: Step) -> Iterator[tuple[str, str, bool]]:
    """Yield (argument, what is wrong, whether PEFT raises) of each entry that matches nothing."""
    model, load = step.before, step.before.load
    if load is None or load.value("trust_remote_code") is not None or not load.callee.startswith("transformers."):
        return
    kind = facts_of(name := load.value("pretrained_model_name_or_path"), model.named).model_type
    loaded = source.dialect == "python" and load.callee.partition(".")[2]  # programs choose the class: one with a vision tower
    causal = kind in OUTER_OF and loaded == "AutoModelForCausalLM.from_pretrained"
    old = number(source.versions.get("transformers", "5")) < (5,)
    yield from _pattern(config, kind, old=old, causal=causal)
    if not causal:
        return
    if config.value("layers_to_transform") is not None:
        yield from _layers(source, config, kind, _layers_of(name, model))
    saved, have = config.value("modules_to_save"), OUTER_OF[kind]
    for one in saved if isinstance(saved, tuple) else ():
        if one in OUTER and one not in have:
            yield "modules_to_save", f"names {one}, which this model does not have: it has {' and '.join(have)}", False


def _pattern(config: Call, kind: str, *, old: bool, causal: bool) -> Iterator[tuple[str, str, bool]]:
    """Yield a regular expression for targets that matches no module."""
    written = config.value("target_modules")
    if not isinstance(written, str) or _SIGNS.isdisjoint(written):
        return
    before, since = renamed_paths(kind) if not old else ((), ())
    if since and any(matches(written, path, whole=True) for path in before) and _matches_none(written, since):
        yield "target_modules", "matches paths of transformers 4, and since 5 they start with model.language_model", True
    if causal and kind not in ("mixtral", "qwen3_moe"):  # the table leaves out their experts
        paths = [*layer_paths(kind, tuple(range(100))), *OUTER_OF[kind]]
        paths += [f"{stack.rpartition('.')[0]}.{one}" for stack, _ in STACKS[kind] for one in OUTER_OF[kind]]
        if _matches_none(written, paths):
            yield "target_modules", f"matches no module: the first linear layer is {paths[0]}", True


def _matches_none(pattern: str, paths: Iterable[str]) -> bool:
    return all(matches(pattern, path, whole=True) is False for path in paths)


def _layers(source: SourceFacts, config: Call, kind: str, layers: int) -> Iterator[tuple[str, str, bool]]:
    """Yield layers and lists of layers that the model does not have."""
    argument, lists = config.argument("layers_to_transform"), config.value("layers_pattern")
    given = argument.value if argument is not None else None
    numbers: list[object] = [given] if isinstance(given, int) else [*given] if isinstance(given, tuple) else []
    made = _RANGE.fullmatch(source.code_of(argument.span)) if argument is not None and not numbers else None
    if made is not None:
        numbers = [*range(*(int(one) for one in made.groups() if one))]
    beyond = [one for one in numbers if isinstance(one, int) and one >= layers > 0]
    if beyond:
        every = len(beyond) == len(numbers)
        yield "layers_to_transform", f"names layer {beyond[0]}, and the last of {layers} layers is {layers - 1}", every
    names = [lists] if isinstance(lists, str) else lists if isinstance(lists, tuple) else ()
    have = {part for stack, layer in STACKS[kind] for part in (*stack.split("."), *layer.replace(" ", ".").split("."))}
    if names and all(isinstance(one, str) and one.isidentifier() and one not in have for one in names):
        yield "layers_pattern", f"names {names[0]}, and the list of layers is called {STACKS[kind][0][0]}", True


def _layers_of(name: object, model: ModelState) -> int:
    """Return the number of layers; 0 if it is not known."""
    if model.named is not None:
        return model.named.layers
    from kbitlint.upstream.checkpoints import checkpoint_of  # few configs name layers

    known = checkpoint_of(str(name))
    return int(known.config.get("num_hidden_layers", 0)) if known is not None and known.exact else 0
