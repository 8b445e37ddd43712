"""Unsloth, which needs a GPU to be imported: modules with its public names, over transformers, PEFT and TRL.

Names, defaults and what it does to TRL's trainers: unsloth 2026.10, ``models/loader.py``, ``models/llama.py``, ``trainer.py``.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.abc
import importlib.machinery
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kbitlint.rehearsal.inside.absent import Anything
from kbitlint.rehearsal.inside.imports import replace

if TYPE_CHECKING:
    from kbitlint.rehearsal.inside.record import Record

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
#: classes of unsloth that load a model; those of vision have a processor
_LANGUAGE = ("FastLanguageModel", "FastModel", "FastLlamaModel", "FastMistralModel", "FastQwen2Model", "FastQwen3Model")
_VISION = ("FastVisionModel", "FastTextModel")
#: arguments of ``from_pretrained`` that are those of transformers, too
_PASSED = ("token", "trust_remote_code", "revision", "attn_implementation", "quantization_config")
#: arguments of ``get_peft_model`` that are fields of ``LoraConfig``
_OF_LORA = (
    *("bias", "layers_to_transform", "layers_pattern", "use_rslora", "modules_to_save", "init_lora_weights", "use_dora"),
    *("rank_pattern", "alpha_pattern", "target_parameters", "task_type"),
)
#: what TRL calls an argument that older versions took
_RENAMED = {"max_seq_length": "max_length"}


def install(record: Record) -> None:
    """Let imports of unsloth find the stand-in, until the process ends."""
    sys.meta_path.insert(0, _Finder(record))


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A finder of unsloth and its modules."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:  # noqa: ARG002  # importlib passes them
        if name.partition(".")[0] not in ("unsloth", "unsloth_zoo") or not self._record.line():
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = _Unsloth(spec.name)
        vars(module).update(_names(self._record))
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__path__ = []
        if module.__name__ == "unsloth":
            self._record.stand_in("unsloth (transformers, PEFT and TRL as they are)")
            _widen_trainers()


class _Unsloth(ModuleType):
    """A module of unsloth. A name that the stand-in lacks takes everything and does nothing; one of TRL is TRL's."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        import trl  # only scripts of unsloth need it

        return getattr(trl, name, None) or Anything()


@functools.cache
def _names(record: Record) -> dict[str, Any]:
    """Return the public names of unsloth that do something."""
    trl: Any = importlib.import_module("trl")
    loaders = {name: _loader(name, vision=False) for name in _LANGUAGE} | {name: _loader(name, vision=True) for name in _VISION}
    return {
        **loaders,
        "is_bfloat16_supported": _is_bfloat16_supported,
        "is_bf16_supported": _is_bfloat16_supported,
        "get_chat_template": _chat_template(record),
        "standardize_sharegpt": _standardized,
        "standardize_data_formats": _standardized,
        "train_on_responses_only": lambda trainer, *_, **__: trainer,
        "UnslothTrainer": trl.SFTTrainer,
        "UnslothTrainingArguments": trl.SFTConfig,
    }


def _is_bfloat16_supported() -> bool:
    import torch  # see above

    return torch.cuda.get_device_capability()[0] >= 8


def _loader(name: str, *, vision: bool) -> type:
    """Return a class of unsloth: it loads a model with its tokenizer, and attaches adapters."""

    def from_pretrained(  # noqa: PLR0917  # unsloth's signature
        model_name: str = "unsloth/Llama-3.2-1B-Instruct",
        max_seq_length: int | None = 2048,
        dtype: Any = None,
        load_in_4bit: bool = True,  # noqa: FBT001, FBT002  # unsloth's signature
        load_in_8bit: bool = False,  # noqa: FBT001, FBT002  # see above
        load_in_16bit: bool = False,  # noqa: FBT001, FBT002  # see above
        full_finetuning: bool = False,  # noqa: FBT001, FBT002  # see above
        **options: Any,
    ) -> tuple[Any, Any]:
        import torch  # see above
        import transformers  # see above

        passed = {key: options[key] for key in _PASSED if key in options}
        compute = dtype or (torch.bfloat16 if _is_bfloat16_supported() else torch.float16)
        four = load_in_4bit and not (load_in_8bit or load_in_16bit or full_finetuning)
        if four and not model_name.lower().endswith("-bnb-4bit"):
            passed.setdefault(
                "quantization_config",
                transformers.BitsAndBytesConfig(
                    load_in_4bit=True,
                    bnb_4bit_use_double_quant=True,
                    bnb_4bit_quant_type="nf4",
                    bnb_4bit_compute_dtype=compute,
                ),
            )
        elif load_in_8bit:
            passed.setdefault("quantization_config", transformers.BitsAndBytesConfig(load_in_8bit=True))
        auto = transformers.AutoModelForImageTextToText if vision else transformers.AutoModelForCausalLM
        model = auto.from_pretrained(model_name, torch_dtype=compute, device_map="auto", **passed)
        words = transformers.AutoProcessor if vision else transformers.AutoTokenizer
        tokenizer = words.from_pretrained(model_name)
        own = getattr(tokenizer, "tokenizer", tokenizer)
        if own.pad_token is None:
            own.pad_token = own.eos_token
        model.max_seq_length = max_seq_length
        return model, tokenizer

    made = {"from_pretrained": staticmethod(from_pretrained), "get_peft_model": staticmethod(_adapted)}
    quiet = {key: staticmethod(lambda model, *_, **__: model) for key in ("for_inference", "for_training")}
    return type(name, (), {**made, **quiet})


def _adapted(
    model: Any,
    r: int = 16,
    target_modules: Any = _PROJECTIONS,
    lora_alpha: int = 16,
    lora_dropout: float = 0.0,
    use_gradient_checkpointing: Any = "unsloth",
    **options: Any,
) -> Any:
    """Attach adapters as unsloth does: PEFT's LoRA on the frozen model, which checkpoints reentrantly.

    Raises:
        TypeError: An argument is unknown to unsloth and to ``LoraConfig``.
    """
    import peft  # see above

    model.requires_grad_(False)  # noqa: FBT003  # torch's signature
    if use_gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": True})
        model.enable_input_require_grads()
    named = target_modules if isinstance(target_modules, str) else list(target_modules)
    config = peft.LoraConfig(
        r=r,
        lora_alpha=lora_alpha,
        target_modules=named,
        lora_dropout=lora_dropout,
        **{"task_type": "CAUSAL_LM", **{key: options[key] for key in _OF_LORA if options.get(key) is not None}},
    )
    made = peft.get_peft_model(model, config)
    made.max_seq_length = getattr(model, "max_seq_length", None)
    for name in ("save_pretrained_merged", "push_to_hub_merged", "save_pretrained_gguf", "push_to_hub_gguf"):
        setattr(made, name, lambda *_, **__: None)
    return made


def _chat_template(record: Record) -> Any:
    def get_chat_template(tokenizer: Any, *_: Any, **__: Any) -> Any:
        from kbitlint.rehearsal.stand_ins.words import TEMPLATE  # needs transformers

        own = getattr(tokenizer, "tokenizer", tokenizer)
        if not own.chat_template:
            record.synthetic_words = True
            own.chat_template = TEMPLATE
        return tokenizer

    return get_chat_template


def _standardized(dataset: Any, *_: Any, **__: Any) -> Any:
    """Return conversations with the names of roles and content that chat templates have."""
    roles = {"human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant"}

    def renamed(turn: Any) -> dict[str, Any]:
        who, what = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        return {"role": roles.get(who, who), "content": what}

    return dataset.map(lambda row: {"conversations": [renamed(turn) for turn in row["conversations"]]})


def _widen_trainers() -> None:
    """Let TRL's trainers take a tokenizer and the fields of their arguments, as they do once unsloth is imported."""
    import trl  # see above

    for name in dir(trl):
        config = name.removesuffix("Trainer") + "Config"
        if name.endswith("Trainer") and hasattr(trl, config):
            replace(getattr(trl, name), "__init__", functools.partial(_widened, getattr(trl, config)))


def _widened(config_class: Any, original: Any) -> Any:
    parameters = inspect.signature(original).parameters
    fields = {field.name for field in dataclasses.fields(config_class) if field.init}

    @functools.wraps(original)
    def __init__(self: Any, *arguments: Any, **options: Any) -> None:  # noqa: N807  # the name that TRL's own has
        if "tokenizer" in options and "tokenizer" not in parameters:
            options["processing_class"] = options.pop("tokenizer")
        moved = {
            _RENAMED.get(key, key): options.pop(key) for key in list(options) if key not in parameters and _known(key, fields)
        }
        given = options.get("args")
        if given is not None and not isinstance(given, config_class):
            plain = {key: value for key, value in given.to_dict().items() if key in fields and key != "push_to_hub_token"}
            options["args"] = config_class(**{**plain, **moved})
        elif moved:
            options["args"] = config_class(**moved) if given is None else given
            for key, value in moved.items():
                setattr(options["args"], key, value)
        original(self, *arguments, **options)

    return __init__


def _known(name: str, fields: set[str]) -> bool:
    return _RENAMED.get(name, name) in fields
