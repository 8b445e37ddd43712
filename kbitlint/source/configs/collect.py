"""The facts of training configurations: axolotl, LLaMA-Factory, ms-swift, TRL, accelerate and DeepSpeed.

A program turns its keys into calls; ``upstream/programs.py`` lists them as data. So a rule reads the same
``BitsAndBytesConfig`` or ``TrainingArguments`` as in a script, with the places of the keys. ``tree.py`` parses the text.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from kbitlint.facts.model_state import CheckpointingState
from kbitlint.facts.reentry import Reentry
from kbitlint.facts.source import Action, ExecutionPath, SourceFacts
from kbitlint.facts.values import UNKNOWN, Argument, Call
from kbitlint.source.comments import ignores
from kbitlint.source.configs.shell import COMMAND, OTHER, shell_items
from kbitlint.source.configs.tree import json_items, yaml_items
from kbitlint.source.interpreter.objects import Constant, Entry, Record, Sequence, TrackedModel, Trainer, frozen
from kbitlint.source.interpreter.path_state import PathState
from kbitlint.target import SHELLS
from kbitlint.upstream.calls import FUNCTIONS, TRAINERS
from kbitlint.upstream.programs import PROGRAMS, RECIPE_SEEDS, TRL_COMMANDS, recipes
from kbitlint.upstream.versions import installed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path as FilePath

    from kbitlint.source.interpreter.objects import Object
    from kbitlint.upstream.programs import Program


#: words about quantized training
_BITS = re.compile(r"[48][-_ ]?bit|int[48]\b|qlora|nf4|quantiz", re.IGNORECASE)
_SEEDS = tuple({seed.encode() for program in PROGRAMS for seed in program.seeds} | set(RECIPE_SEEDS))


def worth_parsing(content: bytes, suffix: str) -> bool:
    """Return whether a file can be a training configuration, or a shell script with a training command."""
    if suffix in SHELLS:
        text = content.decode("utf-8", "replace")
        return COMMAND.search(text) is not None or (_BITS.search(text) is not None and OTHER.search(text) is not None)
    return any(seed in content for seed in _SEEDS)


def collect(
    file: str, text: str, suffix: str, versions: Mapping[str, str] | None = None, beside: FilePath | None = None
) -> SourceFacts | None:
    """Return the facts of a configuration; None if it does not configure the training of a model.

    Args:
        file: The file's name, as reports print it.
        text: Its text, with line feeds as line ends.
        suffix: ``.json`` for JSON, one of ``SHELLS`` for a shell script; every other suffix means YAML.
        versions: The versions of the libraries whose behaviour is modelled; None means the installed ones.
        beside: The folder of the file, in which configuration files that it names are searched.

    Raises:
        ConfigurationError: The text is invalid, or too large.
    """
    other = OTHER.search(text) if suffix in SHELLS and COMMAND.search(text) is None else None
    if other is not None and other.lastgroup is not None:
        unfollowed = f"launches {other.lastgroup}, which is recognized and not judged"
        calls = _checked(shell_items(text, OTHER), other.lastgroup, other[0].split()[-1])
        return SourceFacts(
            file, text, calls=calls, versions=versions or installed(), dialect=other.lastgroup, unfollowed=unfollowed
        )
    root = json_items(text) if suffix == ".json" else shell_items(text) if suffix in SHELLS else yaml_items(text)
    if root is None:
        return None
    versions = installed() if versions is None else versions
    recipe = next((one for one in recipes() if suffix not in SHELLS and all(sign.search(text) for sign in one.signs)), None)
    if recipe is not None:
        unfollowed = f"is a configuration of {recipe.name}, which is recognized and not judged"
        calls = _checked(root, recipe.name, "finetune")
        return SourceFacts(file, text, calls=calls, versions=versions, dialect=recipe.name, unfollowed=unfollowed)
    named = COMMAND.search(text) if suffix in SHELLS else None
    program = next((p for p in PROGRAMS if _is_of(p, root, named[1] if named is not None else "")), None)
    if program is None or not program.trainer:
        return None  # it describes processes and no model: the user passes it as --training to the check of a model
    trail = PathState(versions, beside=beside)
    if program.exports and (program.exports in root.items or (named is not None and named[1].endswith("export"))):
        paths: tuple[ExecutionPath, ...] = ()
        calls = (dataclasses.replace(root.frozen(trail.effort), callee=f"{program.name}.export"),)
    else:
        asked = named[1].split()[-1] if named is not None else ""
        path, calls = _trained(program, root, trail, TRL_COMMANDS.get(asked, program.trainer))
        paths = (path,)
    return SourceFacts(
        file,
        text,
        calls=calls,
        paths=paths,
        versions=versions,
        dialect=program.name,
        ignores=ignores(text) if suffix != ".json" else (),
    )


def _checked(root: Record | None, program: str, command: str) -> tuple[Call, ...]:
    """Return the call whose arguments the rows of a program are held against, of a program that is not followed."""
    if root is None or program != "LitGPT":
        return ()
    return (dataclasses.replace(root.frozen(PathState(installed()).effort), callee=f"litgpt.{command}"),)


def _is_of(program: Program, root: Record, command: str) -> bool:
    """Return whether keys are those of a program; the command of a shell script names its program."""
    if command:
        return command.replace("-cli", "").split()[0] == program.name
    own = not program.needs or any(key in root.items for key in program.needs)
    return own and sum(key in root.items for key in program.marks) >= program.least


def _trained(program: Program, root: Record, trail: PathState, name: str) -> tuple[ExecutionPath, tuple[Call, ...]]:
    """Return the path and the calls that the keys ask for: load, adapters and training."""
    api = TRAINERS[name if program.name == "trl" else program.trainer]
    load, bits = _load(program, root)
    net = trail.load(load.frozen(trail.effort))
    if program.reentry:
        how = _own_checkpointing(program, root, trail) if bits else CheckpointingState(None)
        hooks = () if how.by is None else (how.by,)  # the program's function makes the layers' inputs require gradients
        net.state = dataclasses.replace(net.state, checkpointing=how, hooks=hooks)
    arguments = _arguments(program, root, api.arguments)
    added = root.get(program.adds) if program.adds else None
    if isinstance(added, Sequence) and added.values:
        trail.step(Action.RESIZE, Call(program.adds, root.items[program.adds].whole), net, net.state, "tokens")
    asked = root.items.get(program.adapter)
    trainer = Trainer(Call(program.name, root.span), net, arguments, api)
    if asked is None and program.adapts_by_default:
        net.state = dataclasses.replace(net.state, certain=False)
    elif asked is not None and frozen(asked.value, trail.effort) not in program.not_adapters:
        _attach(program, trail, net, root, asked)
        if bits and api.adapter_dtype:
            _cast_adapters(net, api.adapter_dtype)
    trail.step(Action.TRAINER, trainer.call, net, net.state)
    trail.finish(trainer)
    # axolotl computes in the dtype of its keys bf16 and fp16, and TRL in that of dtype: no compute dtype is missing
    whole = dataclasses.replace(root.frozen(trail.effort), callee=f"{program.name}.{program.verb}")
    calls = [whole]
    if not program.own_arguments or "fsdp_config" in root.items:
        calls.append(arguments.frozen(trail.effort))
    if program.name == "trl":
        made = Argument("args", calls[-1], root.span, root.span)
        calls.append(Call(name, root.span, (made,), complete=False, style=root.style))
    return trail.path(), tuple(calls)


def _load(program: Program, root: Record) -> tuple[Record, int | None]:
    """Return the load of the model with its quantization config, and the bits; None if the keys ask for none."""
    quantization = _quantization(program, root)
    load = _part(root, "transformers.AutoModelForCausalLM.from_pretrained", ("device_map", "dtype", "torch_dtype"))
    name = root.items.get(program.model)
    if name is not None:
        load.items["pretrained_model_name_or_path"] = name
    half = next((root.items[key] for key in ("fp16", "float16") if _is_true(root, key)), None)
    if half is not None and program.half_by_flag and not _is_true(root, "bf16"):
        load.items.setdefault("dtype", Entry(Constant("float16"), half.span, half.whole))
    bits = 4 if _is_true(quantization, "load_in_4bit") else 8 if _is_true(quantization, "load_in_8bit") else None
    asked = root.get(program.bits) if program.bits else UNKNOWN
    meant = next((n for value, n in program.bits_values if isinstance(asked, Constant) and asked.value == value), None)
    if meant is not None and _by_bitsandbytes(program, root):
        quantization.items[f"load_in_{meant}bit"] = Entry(Constant(True), *2 * (root.items[program.bits].whole,))  # noqa: FBT003
        bits = meant
    if bits is not None and not _heeded(program, root, bits):
        return load, None
    if bits is not None:
        load.items["quantization_config"] = Entry(quantization, quantization.span, quantization.span)
    return load, bits


def _by_bitsandbytes(program: Program, root: Record) -> bool:
    """Return whether the key for bits asks for bitsandbytes, and not for another method."""
    key, values = program.bits_method
    said = root.get(key) if key in root.items else None
    if said is None:
        return not program.method_required
    return isinstance(said, Constant) and said.value in values


def _heeded(program: Program, root: Record, bits: int) -> bool:
    """Return whether the program heeds the key for the bits beside its key for adapters."""
    said = root.get(program.adapter)
    only = dict(program.quantizes_with).get(str(said.value)) if isinstance(said, Constant) else None
    return only is None or only == f"load_in_{bits}bit"


def _arguments(program: Program, root: Record, callee: str) -> Record:
    """Return the arguments of the Trainer: the keys, some of them under other names."""
    items = dict(root.items)
    for key, name in program.renames:
        if key in items:
            items.setdefault(name, items[key])
    if program.checkpoints and not (isinstance(said := root.get("gradient_checkpointing"), Constant) and said.value is False):
        items["gradient_checkpointing"] = Entry(UNKNOWN, root.span, root.span)
    sharded = items.get("fsdp_config")
    if program.own_arguments and sharded is not None and "fsdp" not in items and isinstance(sharded.value, Record):
        items["fsdp"] = Entry(Constant(True), sharded.whole, sharded.whole)  # noqa: FBT003  # the section switches it on
        version = root.items.get("fsdp_version")
        if version is not None:
            inner = {**sharded.value.items}
            inner.setdefault("fsdp_version", version)
            items["fsdp_config"] = dataclasses.replace(sharded, value=dataclasses.replace(sharded.value, items=inner))
    return Record(callee, items, span=root.span, style=root.style, tail=root.tail)


def _quantization(program: Program, root: Record) -> Record:
    """Return the quantization config that a program makes of its keys."""
    made = _part(root, "transformers.BitsAndBytesConfig", program.passes)
    if program.storage is not None:
        made.items["bnb_4bit_quant_storage"] = Entry(Constant(program.storage), root.span, root.span)
    further = root.get(program.quantization) if program.quantization else UNKNOWN
    if isinstance(further, Record):
        made.items.update(further.items)
    return made


def _own_checkpointing(program: Program, root: Record, trail: PathState) -> CheckpointingState:
    """Return the checkpointing of a program that sets the layers' checkpoint function itself."""
    said = root.get(program.reentry) if program.reentry in root.items else Constant(True)  # noqa: FBT003  # the program's default
    if any(key in root.items for key in program.leaves_it) or not isinstance(said, Constant):
        return CheckpointingState(None)
    reentry = Reentry.YES if said.value is True else Reentry.NO if said.value is False else Reentry.UNKNOWN
    return CheckpointingState(
        enabled=True,
        reentry=reentry,
        by=dataclasses.replace(root.frozen(trail.effort), callee=program.name),
        flag=program.reentry,
    )


def _attach(program: Program, trail: PathState, net: TrackedModel, root: Record, asked: Entry) -> None:
    api = next(item for item in FUNCTIONS if item.name == "peft.get_peft_model")
    given = {
        name: _divided(root.items[key]) if key in program.divides else root.items[key]
        for key, name in program.lora
        if key in root.items
    }
    config = Record("peft.LoraConfig", given, complete=False, span=root.span, style=root.style)
    call = Call(api.name, asked.whole, (Argument("peft_config", config.frozen(trail.effort), asked.span, asked.whole),))
    trail.apply(api, call, net)


def _divided(entry: Entry) -> Entry:
    """Return a key of names in one text as a list of them; the word ``all`` alone stands for every linear layer."""
    held = entry.value
    if not isinstance(held, Constant) or not isinstance(held.value, str) or held.value.strip() == "all":
        return entry
    names: list[Object] = [Constant(one.strip()) for one in held.value.split(",") if one.strip()]
    return dataclasses.replace(entry, value=Sequence(names, entry.span))


def _cast_adapters(net: TrackedModel, dtype: str) -> None:
    if net.state.adapters is not None:
        net.state = dataclasses.replace(net.state, adapters=dataclasses.replace(net.state.adapters, dtype=dtype))


def _part(root: Record, callee: str, names: tuple[str, ...]) -> Record:
    """Return some of the keys as the arguments of a call."""
    return Record(
        callee, {n: root.items[n] for n in names if n in root.items}, span=root.span, style=root.style, tail=root.tail
    )


def _is_true(items: Record, name: str) -> bool:
    return items.get(name) == Constant(True)  # noqa: FBT003  # a value of the file
