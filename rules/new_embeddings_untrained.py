"""Rule KB622: new-embeddings-untrained."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.values import Call, Style
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

_TRAINS_ROWS = ("modules_to_save", "trainable_token_indices", "target_parameters")


def _forgets(config: Call) -> bool:
    """Return whether an adapter config is certain to train no embedding."""
    whole = config.complete or config.style in (Style.YAML, Style.JSON)  # a program takes these from its file alone
    if config.callee != "peft.LoraConfig" or any(
        (config.argument(name) is not None or not whole) and config.value(name) is not None for name in _TRAINS_ROWS
    ):
        return False
    targets = None if whole and config.argument("target_modules") is None else config.value("target_modules")
    names = targets if isinstance(targets, tuple) else (targets,)
    return all(name is None or (isinstance(name, str) and "emb" not in name and "wte" not in name) for name in names)


class NewEmbeddingsUntrained(Rule):
    """Embeddings are resized for new tokens, and no adapter trains the new rows.

    ## What it does

    Reports `resize_token_embeddings` in a script that adds tokens, if the LoRA config trains neither the embeddings nor
    chosen tokens. Such a config has no `modules_to_save`, `trainable_token_indices` or `target_parameters`, and no
    target that names an embedding. A file without a training is judged by its LoRA configs. `setup_chat_format`,
    `clone_chat_template` and helpers that are named after a resize of embeddings count as such.

    ## Why is this bad?

    `get_peft_model` freezes the base. The new rows keep their initial values, and the model never learns what the new
    tokens mean.

    ## Example

    `tokenizer.add_special_tokens(...)`, `model.resize_token_embeddings(len(tokenizer))`, `get_peft_model(model,
    LoraConfig(target_modules='all-linear'))`.

    ## Fix

    Pass `trainable_token_indices={'embed_tokens': new_ids}`, or `modules_to_save=['embed_tokens', 'lm_head']`.

    ## Fix safety

    Display only: the config does not contain which tokens are new.

    ## References

    - https://github.com/huggingface/peft/issues/1147
    - https://github.com/huggingface/peft/issues/1300
    - https://github.com/axolotl-ai-cloud/axolotl/issues/1570
    """

    meta: ClassVar[Meta] = Meta(
        code="KB622",
        slug="new-embeddings-untrained",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each resize whose rows stay frozen on every path that trains the model."""
        grown: dict[Call, bool] = {}
        configs = tuple(source.calls_of("peft.LoraConfig"))
        trains = any(path.trainings for path in source.paths)
        forgotten = not trains and bool(configs) and all(map(_forgets, configs))  # the training is in another file
        adds = False
        for path in source.paths:
            untrained: dict[int, bool] = {}
            for training in path.trainings:
                adapters = training.model.adapters
                frozen = adapters is not None and isinstance(adapters.config, Call) and _forgets(adapters.config)
                so_far = untrained.get(training.model_id, True)
                untrained[training.model_id] = so_far and frozen and training.model.certain
            for step in path.steps:
                if step.action is Action.RESIZE:
                    frozen = untrained.get(step.model_id, forgotten)
                    grown[step.call] = grown.get(step.call, True) and frozen
                    adds |= step.detail == "tokens"
        adds_tokens = adds or (any(grown.values()) and source.adds_tokens)
        for call, frozen in grown.items():
            if frozen and adds_tokens:
                config = next((one for one in configs if source.is_imported(call) and not source.is_imported(one)), call)
                yield self.violation(
                    "rows for new tokens are added to the embeddings, and no adapter trains them",
                    source.at(config),
                    surface=Surface.SOURCE,
                    fix=Fix("pass trainable_token_indices or modules_to_save to the adapter config", Safety.DISPLAY),
                )
