"""Rule KB607: dead-rank-pattern."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.module_paths import matches_key
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.upstream.families import facts_of
from kbitlint.upstream.layer_paths import layer_paths
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.source import SourceFacts, Step
    from kbitlint.facts.values import Call

PATTERNS = ("rank_pattern", "alpha_pattern")
#: paths above a target in the models of transformers, for a pattern with more than the target's name
_ABOVE: tuple[str, ...] = ("model.layers.{}.self_attn.", "model.layers.{}.mlp.", "model.layers.{}.block_sparse_moe.experts.0.")
_ABOVE += ("transformer.h.{}.attn.", "transformer.h.{}.mlp.", "model.decoder.layers.{}.self_attn.", "model.decoder.layers.{}.")
_NAME = re.compile(r"\^?[\w.]+")


class DeadRankPattern(Rule):
    r"""A pattern for ranks or scales that matches none of the adapter's modules.

    ## What it does

    Reports keys of `rank_pattern` and `alpha_pattern` that match none of the listed `target_modules` in a script, or no
    module of a saved adapter's tensors. The keys are matched as PEFT matches them. KB601 reports them on models.

    ## Why is this bad?

    PEFT compares `(.*\.)?(key)$` with the whole path. A key with `^` in front of a bare name never matches. PEFT warns
    once and uses `r` and `lora_alpha`, so the layers get another rank and scale than the config says.

    ## Example

    `LoraConfig(target_modules=['q_proj'], rank_pattern={'^q_proj': 32})`.

    ## Fix

    Write the end of the module's path, without an anchor: `{'q_proj': 32}`.

    ## Fix safety

    Display only: the adapters have to be attached again.

    ## References

    - https://github.com/huggingface/peft/issues/3582
    """

    meta: ClassVar[Meta] = Meta(
        code="KB607",
        slug="dead-rank-pattern",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each key of a pattern that matches no listed target, on every path that attaches it."""
        seen: set[int] = set()
        for _, steps in source.steps_at(Action.ATTACH):
            for name in PATTERNS:
                config = steps[0].call.within("peft_config")
                patterns = config.within(name) if config is not None else None
                targets = _listed(config)
                if config is None or patterns is None or not targets or patterns.span.start in seen:
                    continue
                seen.add(patterns.span.start)
                paths = _paths(steps, targets)
                for key in (key for key in patterns.arguments if _matches_none(key.name, targets, paths)):
                    yield self.violation(
                        f"{name} names {key.name!r}, which matches none of target_modules: the default is used",
                        source.at_line(key.whole.line, name),
                        surface=Surface.SOURCE,
                        evidence={"pattern": key.name, "targets": list(targets)},
                        fix=Fix("write the end of the module's path, without an anchor", Safety.DISPLAY),
                    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each key of a pattern that matches no module of the adapter's tensors."""
        if not checkpoint.adapter_tensors:
            raise Unchecked("no adapter_model.safetensors here")
        modules = {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in checkpoint.adapter_tensors}
        for name in PATTERNS:
            patterns = (checkpoint.adapter or {}).get(name)
            for key in filter(_NAME.fullmatch, patterns) if isinstance(patterns, dict) else ():
                if not any(matches_key(key, module) for module in modules):
                    yield self.violation(
                        f"{name} names {key!r}, which matches no module of the adapter: the default was used",
                        Location(name, "adapter_config.json"),
                        surface=Surface.FILES,
                        evidence={"pattern": key, "modules": len(modules)},
                        fix=Fix("train again with the end of the module's path as key", Safety.DISPLAY),
                    )


def _listed(config: Call | None) -> tuple[str, ...]:
    """Return the names of ``target_modules``; an empty tuple if they are a regular expression or not known."""
    value = config.value("target_modules") if config is not None else None
    names = value if isinstance(value, tuple) else ()
    return tuple(name for name in names if isinstance(name, str)) if all(isinstance(name, str) for name in names) else ()


def _paths(steps: tuple[Step, ...], targets: tuple[str, ...]) -> list[str]:
    """Return the paths of the targets in a language model whose family tells them; an empty list if they are not known."""
    loads = {step.before.load for step in steps}
    load = next(iter(loads)) if len(loads) == 1 else None
    if load is None or load.callee != "transformers.AutoModelForCausalLM.from_pretrained" or load.gives("trust_remote_code"):
        return []
    kind = facts_of(load.value("pretrained_model_name_or_path"), steps[0].before.named).model_type
    return [path for path in layer_paths(kind, tuple(range(100))) if path.endswith(tuple(f".{name}" for name in targets))]


def _matches_none(pattern: str, targets: tuple[str, ...], known_paths: list[str]) -> bool:
    """Return whether a pattern is a plain or anchored name that matches no target; other patterns are not judged."""
    if not _NAME.fullmatch(pattern):
        return False
    if known_paths:
        return not any(matches_key(pattern, path) for path in known_paths)
    name = pattern.removeprefix("^").replace("\\.", ".")
    paths = [above.format(number) + target for target in targets for above in _ABOVE for number in (0, 1, 11)]
    known = any(matches_key(pattern, path) for path in paths)
    longer = not pattern.startswith("^") and any(name.endswith(f".{target}") for target in targets)  # a path of its own
    whole = "." in name and any(name.endswith(f".{target}") for target in targets)
    return not (known or longer or whole)
