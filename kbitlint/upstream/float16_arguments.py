"""Arguments of a script that make a checkpoint compute in float16 which is published in bfloat16, or overflows in float16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint import lazy_patterns as re
from kbitlint.facts.dtypes import LOW_PRECISION
from kbitlint.facts.source import Action
from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream import families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.source import ExecutionPath, SourceFacts
    from kbitlint.facts.values import Argument

#: changes of a model that a script makes in order to train it
TRAINING = (Action.PREPARE, Action.ATTACH, Action.TRAINER)
#: calls of a script that only generates text with a model
_GENERATES = re.compile(r"\bpipeline\(|\.generate\(")
#: cards without bfloat16, of Turing, Volta and Pascal, places that lend such cards for nothing, and cards that have it
_OLDER = re.compile(
    r"(?<![A-Za-z0-9])(?:T4|V100|P100|P40|RTX ?20[678]0|2080 ?Ti|GTX ?1[06][0-9]0(?: ?Ti)?|Turing|Volta|Pascal"
    r"|[Kk]aggle|Colab \(?[Ff]ree|[Ff]ree[- ]tier Colab|[Ff]ree Colab)(?![A-Za-z0-9])"
)
_NEWER = re.compile(r"(?<![A-Za-z0-9])(?:A100|H100|H200|B200|L4|L40S?|A10G?|A40|A6000|[34]090|Ampere|Hopper)(?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True)
class Place:
    """An argument that sets the dtype in which a checkpoint computes."""

    checkpoint: str
    overflows: bool
    argument: Argument
    dtype: str


def loaded(source: SourceFacts, path: ExecutionPath) -> Iterator[Place]:
    """Yield the arguments that set the dtype of each load on a path, unless the script only generates with the model."""
    trained = {step.model_id for step in path.steps if step.action in TRAINING} | {t.model_id for t in path.trainings}
    for step in path.steps:
        model = step.before
        if step.action is not Action.LOAD:
            continue
        name = step.call.value("pretrained_model_name_or_path")
        known = families.facts_of(name, model.named)
        if not known.overflows and not (model.kbit and known.dtype == "bfloat16"):
            continue
        if step.model_id not in trained and _GENERATES.search(source.text):
            continue
        for call, key in ((step.call, "dtype"), (step.call, "torch_dtype"), (model.quantization, "bnb_4bit_compute_dtype")):
            given = call.argument(key) if call is not None else None
            if call is not None and given is not None and call.dtype(key) in LOW_PRECISION:
                yield Place(str(name), known.overflows, given, str(call.dtype(key)))


def trained(path: ExecutionPath) -> Iterator[Place]:
    """Yield the argument ``fp16=True`` of each training on a path whose adapters KB120 does not report."""
    for training in path.trainings:
        model, given = training.model, training.arguments.argument("fp16") if training.arguments is not None else None
        if given is None or training.fp16 is not True or model.load is None or given.span.end == 0:
            continue
        name = model.load.value("pretrained_model_name_or_path")
        known = families.facts_of(name, model.named)
        unfit = model.kbit and model.adapters is not None and model.adapters.dtype == "bfloat16"
        if (known.overflows or (model.kbit and known.dtype == "bfloat16")) and not unfit:
            yield Place(str(name), known.overflows, given, "float16")


def names_older_card(source: SourceFacts) -> bool:
    """Return whether the file, its name or the text cells of a notebook name a card without bfloat16, and no newer one."""
    name = source.file.replace("\\", "/").rpartition("/")[2]
    texts = (name, source.notes, source.text)
    return any(map(_OLDER.search, texts)) and not any(map(_NEWER.search, texts))
