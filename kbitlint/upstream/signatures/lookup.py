"""Keywords that a constructor does not take in a version, and names that a version no longer exports.

A row is a text of names. ``name>0.7.2<0.16.1`` is taken by versions above the first number and below the second one; between
released versions that were not read, the keyword counts as taken. ``**`` takes any further keyword.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream.versions import NEWEST, declared, number, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kbitlint.facts.values import Call

_LIBRARIES = ("transformers", "trl", "peft", "datasets")

#: former name -> the name that replaces it, by the end of the class's name
_RENAMED: Mapping[str, Mapping[str, str]] = {
    "Trainer": {"tokenizer": "processing_class", "config": "args", "policy": "model", "ref_policy": "ref_model"},
    "Arguments": {
        "evaluation_strategy": "eval_strategy",
        "no_cuda": "use_cpu",
        "per_gpu_train_batch_size": "per_device_train_batch_size",
        "per_gpu_eval_batch_size": "per_device_eval_batch_size",
        "push_to_hub_token": "hub_token",
        "push_to_hub_model_id": "hub_model_id",
        "torchdynamo": "torch_compile_backend",
        "warmup_ratio": "warmup_steps",  # a number below 1 is a share of all steps
    },
    "Config": {
        "max_seq_length": "max_length",
        "use_liger": "use_liger_kernel",
        "use_liger_loss": "use_liger_kernel",
        "torch_dtype": "dtype",
    },
}

#: arguments that decided nothing any more, or whose usual value is what the library now always does
_INERT: Mapping[str, tuple[object, ...]] = {
    "overwrite_output_dir": (True, False),
    "save_safetensors": (True,),
    "fp16_opt_level": ("O1",),
    "half_precision_backend": ("auto", "cuda_amp"),
    "use_mps_device": (True, False),
    "num_of_sequences": (1024,),
    "chars_per_token": (3.6,),
    "dataset_batch_size": (1000,),
    "adafactor": (False,),
    "no_cuda": (False,),
    "group_by_length": (False,),
    "logging_dir": ("./logs", "logs"),
}


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword that a constructor does not take in a version of its library."""

    library: str
    """The library whose version decides."""
    name: str
    until: str = ""
    """The first version that does not take it; empty if no version took it before."""
    since: str = ""
    """The last version that does not take it yet; empty if no later one takes it."""
    replacement: str = ""
    """The keyword that has its place in this version; empty if there is none."""
    inert: tuple[object, ...] = ()
    """The values without which nothing changes."""

    @property
    def when(self) -> str:
        """Return which versions do not take the keyword, in brackets after a blank; empty if none ever did."""
        if self.until:
            return f" (since {self.library} {short(self.until)})"
        return f" (up to {self.library} {short(self.since)})" if self.since else ""

    def is_certain(self, versions: Mapping[str, str]) -> bool:
        """Return whether a script certainly runs with a version that does not take the keyword."""
        have = number(declared(versions).get(self.library, ""))
        if self.until:
            return bool(have) and have >= number(self.until)
        return not self.since or (bool(have) and have <= number(self.since))


@functools.cache
def _row(callee: str) -> Mapping[str, tuple[str, str]]:
    """Return (last version without, first version without again) of each parameter of a callee; empty if it is not known."""
    library = callee.partition(".")[0]
    if library not in _LIBRARIES:
        return {}
    module = importlib.import_module(f"kbitlint.upstream.signatures.{library}")
    return {name: (since, until) for name, since, until in map(_marks, module.ROWS.get(callee, "").split())}


def _marks(text: str) -> tuple[str, str, str]:
    """Return the name of a parameter and its two marks: ``name>0.7.2<0.16.1``."""
    rest, _, until = text.partition("<")
    name, _, since = rest.partition(">")
    return name, since, until


def base_of(callee: str) -> str:
    """Return the class whose parameters a class takes as well; empty if there is none."""
    library = callee.partition(".")[0]
    if not _row(callee):
        return ""
    base: str = importlib.import_module(f"kbitlint.upstream.signatures.{library}").BASES.get(callee, "")
    return base


def takes(callee: str, name: str, versions: Mapping[str, str]) -> bool:
    """Return whether a constructor takes a keyword in these versions; True for a constructor without a row."""
    return refusal(callee, name, versions) is None


def refusal(callee: str, name: str, versions: Mapping[str, str]) -> Keyword | None:
    """Return the keyword with the reason why a constructor does not take it; None if it does, or has no row."""
    if not _row(callee):
        return None
    refused: list[Keyword] = []
    lineage = [callee]
    while lineage[-1]:
        lineage.append(base_of(lineage[-1]))
    for one in filter(None, lineage):
        found = _refused(one, name, versions)
        if found is None:
            return None
        refused.append(found)
    known = [keyword for keyword in refused if keyword.until or keyword.since]
    best = known[0] if known else refused[0]
    new = next((names[name] for end, names in _RENAMED.items() if callee.endswith(_kinds(end)) and name in names), "")
    kept = new and all(new != keyword.name for keyword in refused) and takes(callee, new, versions)
    return Keyword(best.library, name, best.until, best.since, new if kept else "", _INERT.get(name, ()))


#: keywords of from_pretrained that went -> (first version read without them, successor, inert values)
_WENT: Mapping[str, tuple[str, str, tuple[object, ...]]] = {
    "use_auth_token": ("5.0.0", "token", (None, False)),
    "resume_download": ("5.0.0", "", (True, False, None)),
    "use_flash_attention_2": ("5.0.0", "", (False, None)),
}
#: keywords of tokenizers and trainers that no model's class or config takes
_ALIEN = frozenset(
    ("use_fast", "padding_side", "truncation_side", "add_eos_token", "add_bos_token", "max_seq_length", "device")
)


#: the last version of transformers whose ``from_pretrained`` takes ``torch_dtype`` only
_WITHOUT_DTYPE = "4.55.4"


def _is_own(call: Call) -> bool:
    """Return whether a checkpoint's name tells a family whose class is transformers' own, and no code of the checkpoint."""
    from kbitlint.upstream.families import facts_of  # only loads with trust_remote_code need it

    return facts_of(call.value("pretrained_model_name_or_path")).model_type != ""


def load_refusal(call: Call, name: str, versions: Mapping[str, str]) -> Keyword | None:
    """Return the keyword that ``from_pretrained`` of a model passes to a class that does not take it; None if it may take it.

    transformers gives keywords that are no attribute of the config to the model's class. A checkpoint's code may take any.
    """
    cls = call.callee.rpartition(".from_pretrained")[0]
    model = cls.startswith("transformers.") and ("AutoModel" in cls or "For" in cls)
    if not model or (call.value("trust_remote_code") not in (None, False) and not _is_own(call)):
        return None
    if name == "dtype" and number(versions.get("transformers", NEWEST["transformers"])) <= number(_WITHOUT_DTYPE):
        return Keyword("transformers", name, "", _WITHOUT_DTYPE, "torch_dtype")
    until, new, inert = _WENT.get(name, ("", "", ()))
    if until and number(versions.get("transformers", NEWEST["transformers"])) >= number(until):
        return Keyword("transformers", name, until, "", new, inert)
    return Keyword("transformers", name) if name in _ALIEN else None


def raises_under_unsloth(callee: str, keyword: Keyword) -> bool:
    """Return whether unsloth passes a keyword on, with which the trainer raises. Unsloth drops those of configs.

    It moves what TRL's trainers and configs take or took (``_route_unknown_trainer_kwargs`` of unsloth 2026.10).
    """
    trainer = callee.endswith("Trainer") and not (keyword.until or keyword.since or keyword.replacement)
    field = refusal(f"{callee.removesuffix('Trainer')}Config", keyword.name, {}) if trainer else None
    return field is not None and not (field.until or field.since or field.replacement)


def _kinds(end: str) -> tuple[str, ...]:
    """Return the ends of the names of classes with the same former names."""
    return ("Arguments", "Config") if end == "Arguments" else (end,)


def _refused(callee: str, name: str, versions: Mapping[str, str]) -> Keyword | None:
    library, row = callee.partition(".")[0], _row(callee)
    have = number(versions.get(library, NEWEST.get(library, ""))) or (10**6,)
    found = [row[key] for key in (name, "**") if key in row]
    if any((not since or have > number(since)) and (not until or have < number(until)) for since, until in found):
        return None
    since, until = row.get(name, ("", ""))
    past = bool(until) and have >= number(until)
    return Keyword(library, name, until if past else "", "" if past else since)


def replaced(callee: str, names: Iterable[str], versions: Mapping[str, str]) -> Iterator[str]:
    """Yield the new name of each keyword that a constructor took under a former name only."""
    for name in names:
        found = refusal(callee, name, versions)
        if found is not None and found.replacement:
            yield found.replacement


def names_of(callee: str, versions: Mapping[str, str]) -> Iterator[str]:
    """Yield the keywords that a constructor takes in these versions, its base's included."""
    while callee:
        yield from (name for name in _row(callee) if name != "**" and _refused(callee, name, versions) is None)
        callee = base_of(callee)


def removal(library: str, name: str) -> str:
    """Return the first version of a library that no longer exports a name; empty if the newest exports it, or never did."""
    if library not in _LIBRARIES:
        return ""
    return _removed(library).get(name, "")


@functools.cache
def _removed(library: str) -> Mapping[str, str]:
    rows: Mapping[str, str] = importlib.import_module(f"kbitlint.upstream.signatures.{library}").REMOVED
    return {name: version for version, names in rows.items() for name in names.split()}


#: library -> names that scripts import from it, and that no other one of these libraries exports
_HOMES: Mapping[str, str] = {
    "trl": "SFTTrainer SFTConfig DPOTrainer DPOConfig GRPOTrainer GRPOConfig KTOTrainer KTOConfig RewardTrainer RewardConfig",
    "peft": "LoraConfig PeftModel get_peft_model prepare_model_for_kbit_training AutoPeftModelForCausalLM TaskType",
    "transformers": (
        "AutoModelForCausalLM AutoTokenizer TrainingArguments Trainer BitsAndBytesConfig DataCollatorForLanguageModeling "
        "DataCollatorForSeq2Seq Seq2SeqTrainer Seq2SeqTrainingArguments"
    ),
    "datasets": "load_dataset load_from_disk DatasetDict concatenate_datasets",
}
HOMES: Mapping[str, str] = {name: library for library, names in _HOMES.items() for name in names.split()}
#: libraries from which scripts import such a name by mistake; unsloth 2026.10 exports none of them (``__all__`` of its modules)
STRANGERS = frozenset((*_HOMES, "unsloth"))

#: a name that a library no longer exports -> (module, name) of its successor
MOVED: Mapping[str, tuple[str, str]] = {
    **{
        f"{name}{kind}": (f"trl.experimental.{place}", f"{name}{kind}")
        for name, place in (("CPO", "cpo"), ("GKD", "gkd"), ("OnlineDPO", "online_dpo"), ("ORPO", "orpo"))
        for kind in ("Config", "Trainer")
    },
    "AdamW": ("torch.optim", "AdamW"),
    "AutoModelForVision2Seq": ("transformers", "AutoModelForImageTextToText"),
    "BoneConfig": ("peft", "MissConfig"),
}
