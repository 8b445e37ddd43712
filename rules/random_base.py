"""Rule KB553: random-base."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.values import STORED, Call
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts, Step
    from kbitlint.facts.values import Span

#: fields of a config whose change makes another model, such as a small one for a trial run
_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "n_layer", "n_embd", "num_layers", "d_model", "vocab_size")


class RandomBase(Rule):
    """Adapters are trained on a base that was made from a config, without weights.

    ## What it does

    Reports `from_config` with the config of a published checkpoint, if adapters are attached to the model and trained, and
    nothing loads weights into it. A config whose sizes the file changes is not reported.

    ## Why is this bad?

    `from_config` builds the architecture with random weights. `get_peft_model` freezes them, so that the adapters are trained
    on noise. A `quantization_config` in the config has no effect either. Only `from_pretrained` quantizes: every layer stays a
    plain `nn.Linear`. The script runs, and takes the memory of full precision.

    ## Example

    `AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name, quantization_config=bnb))`.

    ## Fix

    Load the weights: `from_pretrained(name, config=config, quantization_config=bnb)`.

    ## Fix safety

    Unsafe: the weights are downloaded. Display only if the file does not show the checkpoint's name in a short form.

    ## References

    - https://github.com/huggingface/transformers/issues/26901
    """

    meta: ClassVar[Meta] = Meta(
        code="KB553",
        slug="random-base",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each ``from_config`` whose model gets adapters on every path that trains adapters there."""
        trained = {training.model_id for path in source.paths for training in path.trainings}
        seen: set[Span] = set()
        for _, steps in source.steps_at(Action.ATTACH):
            load = steps[0].before.load
            if load is None or load.span in seen or not all(step.model_id in trained and _is_random(step) for step in steps):
                continue
            seen.add(load.span)
            config = _config(load)
            given = config.within("quantization_config") if config is not None else None
            quantized = load.gives("quantization_config") or (given is not None and given.callee != STORED)
            more = " and quantizes none of them" if quantized else ""
            yield self.violation(
                f"from_config makes random weights{more}: the adapters are trained on noise",
                source.at(load),
                surface=Surface.SOURCE,
                evidence={"loader": load.callee, "quantization_asked": quantized},
                fix=_fix(source, load, config),
            )


def _config(load: Call) -> Call | None:
    """Return the call that read the config; None if the file does not tell that it is a published one."""
    config = load.within("0") or load.within("config")
    return config if config is not None and isinstance(config.value("pretrained_model_name_or_path"), str) else None


def _is_random(step: Step) -> bool:
    """Return whether a model certainly has the weights with which ``from_config`` made it."""
    load = step.before.load
    if load is None or not load.callee.endswith(".from_config") or not step.before.certain:
        return False
    config = _config(load)
    return config is not None and not any(config.argument(name) for name in _SIZES)


def _fix(source: SourceFacts, load: Call, config: Call | None) -> Fix:
    title = "load the weights with from_pretrained"
    argument = config.argument("pretrained_model_name_or_path") if config is not None else None
    name = source.code_of(argument.span) if argument is not None else ""
    code = source.code_of(load.span)
    if config is None or load.argument("0") is None or not name or "\n" in name or "from_config(" not in code:
        return Fix(title, Safety.DISPLAY)
    new = code.replace("from_config(", f"from_pretrained({name}, config=", 1)
    asked = config.argument("quantization_config")
    if asked is not None and isinstance(asked.value, Call) and asked.value.callee != STORED and source.writes(config, asked):
        new = f"{new[:-1].rstrip().rstrip(',')}, quantization_config={source.code_of(asked.span)})"
    return Fix(title, Safety.UNSAFE, source.replace(load.span, new))
