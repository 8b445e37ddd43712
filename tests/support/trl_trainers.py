"""Every trainer of the installed TRL around a tiny nf4 model, with a data set that it can train on."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import sys
import warnings
from typing import Any

import tiny
import transformers
from peft import LoraConfig, get_peft_model

#: trainers that cannot be built without a server -> the reason
ELSEWHERE = {
    "AsyncDistillationTrainer": "needs a vLLM server",
    "AsyncGRPOTrainer": "needs a vLLM server",
    "ServerDistillationTrainer": "needs a vLLM server",
}


@functools.cache
def tokenizer(*, of_bytes=False):
    """Return a tokenizer of words or of bytes, made without the network."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = {"pad_token": "0", "eos_token": "1"}
    if of_bytes:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        made = Tokenizer(models.BPE({sign: number for number, sign in enumerate(alphabet)}, merges=[]))
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        words = {str(number): number for number in range(tiny.VOCAB)}
        made = Tokenizer(models.WordLevel(words, **{"unk_token": "0"}))  # noqa: PIE804  # ruff takes it for a password
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)
    made.chat_template = (
        "{% for message in messages %}{{ ' 3 ' + message['content'] }}{% endfor %}{% if add_generation_prompt %} 4 {% endif %}"
    )
    return made


def numbers(first, last):
    return " ".join(map(str, range(first, last)))


TEXT = {"text": numbers(2, 18)}
PAIR = {"prompt": numbers(2, 8), "chosen": " " + numbers(8, 14), "rejected": " " + numbers(14, 20)}
TRIPLE = {**PAIR, "reference": " " + numbers(20, 24)}
LABELLED = {"prompt": numbers(2, 8), "completion": " " + numbers(8, 14), "label": True}
PROMPT = {"prompt": numbers(2, 8)}
CHAT = {
    "messages": [{"role": "user", "content": numbers(5, 9)}, {"role": "assistant", "content": numbers(9, 14)}],
}
PRIVILEGED = {
    "prompt": [{"role": "user", "content": numbers(5, 9)}],
    "privileged_context": numbers(9, 14),
}


def reward(completions, **_):
    return [float(position) for position, _ in enumerate(completions)]


def teacher():
    """Return a teacher model, with the tokenizer in its folder, because some trainers load it by the model's name."""
    tokenizer().save_pretrained(tiny.checkpoint("llama"))
    return tiny.load(kind="none")


#: trainers without a peft_config, whose users attach the adapters
UNADAPTED = ("A2POTrainer",)
#: trainers that align tokens by their bytes
OF_BYTES = ("GOLDTrainer",)
SHORT = {"max_length": 16}
#: two completions of four tokens
GENERATED = {"max_completion_length": 4, "num_generations": 2}
#: name -> (row, keyword arguments of the trainer, keyword arguments of its configuration)
RECIPES: dict[str, Any] = {
    "SFTTrainer": (TEXT, {}, SHORT),
    "DPOTrainer": (PAIR, {}, SHORT),
    "DPOTrainer of bema_for_ref_model": (PAIR, {}, SHORT),
    "KTOTrainer": (LABELLED, {}, SHORT),
    "RewardTrainer": (PAIR, {}, {"max_length": 32}),
    "GRPOTrainer": (PROMPT, {"reward_funcs": reward}, GENERATED),
    "RLOOTrainer": (PROMPT, {"reward_funcs": reward}, GENERATED),
    "DistillationTrainer": (PROMPT, {"teacher_model": teacher}, {"max_completion_length": 4}),
    "CPOTrainer": (PAIR, {}, SHORT),
    "ORPOTrainer": (PAIR, {}, SHORT),
    "TPOTrainer": (TRIPLE, {}, SHORT),
    "GKDTrainer": (CHAT, {"teacher_model": teacher}, {**SHORT, "max_new_tokens": 4}),
    "GOLDTrainer": (CHAT, {"teacher_model": teacher}, {"max_length": 64, "max_completion_length": 4}),
    "IWOPDTrainer": (CHAT, {"teacher_model": teacher}, {**SHORT, "max_completion_length": 4}),
    "OnlineDPOTrainer": (PROMPT, {"reward_funcs": reward}, {"max_new_tokens": 4, "max_length": 16}),
    "SDFTTrainer": (PRIVILEGED, {}, GENERATED),
    "SDPOTrainer": (PRIVILEGED, {"reward_funcs": reward}, GENERATED),
    "GMPOTrainer": (PROMPT, {"reward_funcs": reward}, GENERATED),
    "A2POTrainer": (PROMPT, {"reward_funcs": reward}, {"max_completion_length": 4}),
}


@functools.cache
def classes():
    """Return every trainer class that TRL defines, by name, experimental ones included."""
    import trl.experimental
    import trl.trainer

    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for package in (trl.trainer, trl.experimental):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if not module.name.endswith("_trainer"):
                    continue
                for name, cls in vars(importlib.import_module(module.name)).items():
                    if inspect.isclass(cls) and issubclass(cls, transformers.Trainer) and cls.__module__ == module.name:
                        found[name if name not in found else f"{name} of {module.name.split('.')[-2]}"] = cls
    return {name: cls for name, cls in found.items() if not name.startswith("_")}


def lora(**further):
    return LoraConfig(target_modules="all-linear", **further)


def build(name, folder, *, model=None, rows=4, peft_config=None, callbacks=(), adapted=False, **further):
    """Return a trainer of a tiny nf4 Llama, with LoRA on all linear layers and bf16, as in TRL's own examples.

    A model that is ``adapted`` keeps the adapters that it has.
    """
    import datasets

    row, arguments, options = RECIPES[name]
    cls = classes()[name]
    named = name.split()[0].replace("Trainer", "Config")
    (config, *_) = [found for base in cls.__mro__ if (found := vars(sys.modules[base.__module__]).get(named)) is not None]
    args = config(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        **{
            "bf16": True,
            "max_steps": 2,
            "learning_rate": 0.1,
            "per_device_train_batch_size": 2,
            "save_strategy": "no",
            "disable_tqdm": True,
            **options,
            **further,
        },
    )
    if model is None:
        model = tiny.load("llama (reward model)" if name == "RewardTrainer" else "llama")
    arguments = {key: value() if value is teacher else value for key, value in arguments.items()}
    if name in UNADAPTED:
        model = get_peft_model(model, peft_config or lora())
    elif not adapted:
        arguments["peft_config"] = peft_config or lora()
    rows = datasets.Dataset.from_list([row] * rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls(
            model=model,
            args=args,
            train_dataset=rows,
            processing_class=tokenizer(of_bytes=name in OF_BYTES),
            callbacks=list(callbacks),
            **arguments,
        )
