"""Objects that functions and trainers cannot use in the place of a parameter; each was run with the installed versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.upstream.objects.returns import (
    CONFIGS,
    DATASET,
    FRAME,
    MODEL,
    OPTIMIZER,
    PEFT_MODEL,
    SCHEDULER,
    SPLITS,
    TOKENIZER,
)
from kbitlint.upstream.versions import number

if TYPE_CHECKING:
    from collections.abc import Mapping

_DATA = frozenset((DATASET, SPLITS))
_NO_MODEL = CONFIGS | _DATA | {TOKENIZER, FRAME, "torch.nn.Embedding", "dict", "list", "int", "tuple"}
_NO_DATA = CONFIGS | {MODEL, PEFT_MODEL, TOKENIZER, "transformers.BatchEncoding", FRAME, "str", "int"}
_NO_TOKENIZER = CONFIGS | _DATA | {MODEL, PEFT_MODEL, "int", "str", "tuple"}
_NO_ADAPTER = frozenset(("dict", "str", MODEL, PEFT_MODEL, TOKENIZER, "transformers.TrainingArguments"))
_NO_ARGUMENTS = frozenset(("dict", MODEL, PEFT_MODEL, TOKENIZER, DATASET, "peft.LoraConfig"))

#: trainers that read settings which SFTConfig does not have
_OWN_LOSSES = ("trl.DPOTrainer", "trl.GRPOTrainer", "trl.RLOOTrainer")
#: parameter of a trainer -> kinds that it cannot use
_TRAINER: Mapping[str, frozenset[str]] = {
    "model": _NO_MODEL,
    "args": _NO_ARGUMENTS,
    "peft_config": _NO_ADAPTER,
    "data_collator": frozenset((TOKENIZER, MODEL, "str", "dict")),
    "callbacks": frozenset(("transformers.TrainerCallback",)),
    "optimizers": frozenset((OPTIMIZER, SCHEDULER)),
    "processing_class": _NO_TOKENIZER,
    "tokenizer": _NO_TOKENIZER,
    "train_dataset": _NO_DATA,
    "eval_dataset": _NO_DATA,
}
_ATTACHES = (
    *("peft.get_peft_model", "peft.PeftModel", "peft.PeftModel.from_pretrained"),
    *(f"unsloth.Fast{name}.get_peft_model" for name in ("LanguageModel", "Model", "VisionModel")),
)
_ADAPTERS: Mapping[str, frozenset[str]] = {
    "model": _NO_MODEL | {"str"},
    "peft_config": _NO_ADAPTER,
    "model_id": CONFIGS | {MODEL, PEFT_MODEL, TOKENIZER, "dict"},
}
_WORDS: Mapping[str, str] = {
    "transformers.TrainerCallback": "is one callback, and must be a list of callbacks",
    OPTIMIZER: "is one optimizer, and must be a pair of an optimizer and a scheduler",
    "tuple": "is a tuple, such as a pair of a model and a tokenizer",
    FRAME: "is a DataFrame of pandas, whose rows have no numbers as keys: Dataset.from_pandas makes a data set of it",
    SCHEDULER: "is one scheduler, and must be a pair of an optimizer and a scheduler",
}


def refuses(callee: str, name: str, kind: str, source: str) -> str:
    """Return why a callee cannot use an object as an argument; empty if it can, or if that is not known.

    Args:
        callee: The function or class: ``transformers.Trainer``.
        name: The parameter.
        kind: The kind of the object.
        source: Where the object comes from; the full name of a class that is given itself.
    """
    last = callee.rpartition(".")[2]
    trains = last.endswith("Trainer") and callee.startswith(("transformers.", "trl."))
    attaches = callee in _ATTACHES
    refused = _TRAINER if trains else _ADAPTERS if attaches or last.startswith("prepare_model_for") else {}
    if kind == "method":
        takes = name == "params" and source in ("parameters", "named_parameters") and ".optim." in f".{callee}."
        return f"is the method {source}, and must be what it returns: {source}()" if takes else ""
    if callee.startswith("transformers.") and last == "from_pretrained" and name == "model_id":
        return f"is {_named(kind)}, and belongs to quantization_config" if kind == "transformers.BitsAndBytesConfig" else ""
    if kind == "api":
        given = source.rpartition(".")[2]
        made = given[:1].isupper() and (given.endswith(("Config", "Arguments")) or given.startswith("DataCollator"))
        return (
            f"is the class {given}, and must be an object of it"
            if made and (name in refused or name == "quantization_config")
            else ""
        )
    if kind == "list" and name in ("train_dataset", "eval_dataset") and callee.startswith("trl."):
        return "is a list, and must be a Dataset" if trains else ""
    if kind == "str" and name == "model" and callee.startswith("transformers.") and trains:
        return "is a text, and must be a model"
    if kind not in refused.get(name, ()):
        return ""
    return _WORDS.get(kind, f"is {_named(kind)}")


def refuses_arguments(trainer: str, kind: str, versions: Mapping[str, str]) -> str:
    """Return why a Trainer cannot use an object of a class as its arguments; empty if it can, or if that is not known.

    Args:
        trainer: The Trainer's class.
        kind: The class of the object.
        versions: The versions of the libraries. TRL converted arguments of transformers before 0.13.
    """
    own = {"transformers.Seq2SeqTrainer": "Seq2SeqTrainingArguments"} | {
        f"trl.{name}Trainer": f"{name}Config" for name in ("DPO", "KTO", "Reward", "GRPO", "RLOO")
    }
    others = ("transformers.TrainingArguments", *(("trl.SFTConfig",) if trainer in _OWN_LOSSES else ()))
    old = trainer.startswith("trl.") and number(versions.get("trl", "")) < (0, 13) and bool(versions.get("trl"))
    if trainer not in own or kind not in others or old:
        return ""
    return f"is {_named(kind)}, and must be an object of {own[trainer]}"


def _named(kind: str) -> str:
    short = kind.rpartition(".")[2]
    return f"an object of {short}" if "." in kind else {"int": "a number", "str": "a text"}.get(kind, f"a {short}")
