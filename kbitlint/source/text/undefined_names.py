"""Names that a call of a library needs, and that nothing in the file binds."""

from __future__ import annotations

import ast
import builtins
from typing import TYPE_CHECKING

from kbitlint.source.nodes import last_name, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIGS = ("BitsAndBytes", "Lora", "Peft", "SFT", "DPO", "KTO", "GRPO", "ORPO", "CPO", "Reward", "RLOO")
_AUTO = ("CausalLM", "Seq2SeqLM", "SequenceClassification", "TokenClassification", "ImageTextToText", "Vision2Seq")
#: names of transformers, PEFT, TRL and datasets that scripts import by name
_IMPORTED = frozenset(
    (
        *(f"{name}Config" for name in _CONFIGS),
        *(f"{name}Trainer" for name in ("", "Seq2Seq", *_CONFIGS[3:])),
        *(f"AutoModelFor{name}" for name in _AUTO),
        *("AutoTokenizer", "AutoConfig", "AutoProcessor", "TrainingArguments", "Seq2SeqTrainingArguments", "PeftModel"),
        *("TaskType", "AutoPeftModelForCausalLM", "get_peft_model", "prepare_model_for_kbit_training", "load_dataset"),
        *("DataCollatorForLanguageModeling", "DataCollatorForSeq2Seq", "DataCollatorWithPadding"),
    )
)
#: arguments whose value a script makes itself
_MADE = frozenset(("quantization_config", "peft_config"))
#: modules that scripts use by the name under which they import them
_MODULES = frozenset(("torch", "transformers", "peft", "trl", "datasets", "bitsandbytes", "bnb", "accelerate", "np", "pd"))
#: signs that names come from elsewhere
_ELSEWHERE = ("import *", "exec(", "globals()", "locals()", "%run", "runpy", "%store", "execfile", "builtins.")
_LIBRARIES = ("transformers", "peft", "trl")
_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
_BINDING = (ast.arg, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.MatchMapping, *_NAMED)


def undefined_names(module: ast.Module, text: str) -> Iterator[tuple[str, int]]:
    """Yield (name, line) of the first use of each name that a call of a library needs, and that is bound nowhere.

    A file that imports nothing from the libraries by name is part of something else, and so is one that takes names from
    elsewhere.
    """
    nodes = list(walk(module))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    if not any((node.module or "").partition(".")[0] in _LIBRARIES for node in froms):
        return
    if any(sign in text for sign in _ELSEWHERE):
        return
    bound = set(dir(builtins)) | {name for node in nodes if isinstance(node, _BINDING) for name in _bound(node)}
    bound |= {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    missing = [name for node in nodes if isinstance(node, ast.Call) for name in _needed(node) if name.id not in bound]
    missing += _modules(nodes, bound)
    if not missing:
        return
    expected = {id(inside) for node in nodes if isinstance(node, ast.Try) for one in node.body for inside in walk(one)}
    found: dict[str, int] = {}
    for name in missing:
        if id(name) not in expected:
            found[name.id] = min(name.lineno, found.get(name.id, name.lineno))
    yield from found.items()


def _modules(nodes: list[ast.AST], bound: set[str]) -> Iterator[ast.Name]:
    """Yield the modules of libraries that the file uses and does not import."""
    wanted = _MODULES - bound
    for node in nodes if wanted else ():
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in wanted:
            yield node.value


def _needed(node: ast.Call) -> Iterator[ast.Name]:
    """Yield the names that a call needs.

    These are its function, if a library has one of this name, configs that the script makes, and objects whose attributes it
    gets: ``LoraConfig(r=script_args.lora_r)``.
    """
    owner = node.func
    while isinstance(owner, ast.Attribute):
        owner = owner.value
    if isinstance(owner, ast.Name) and owner.id in _IMPORTED:
        yield owner
    if last_name(node.func) != "from_pretrained" and not last_name(node.func).endswith(("Trainer", "Config", "Arguments")):
        return
    for given in node.keywords:
        if given.arg in _MADE and isinstance(given.value, ast.Name):
            yield given.value
        elif isinstance(given.value, ast.Attribute) and isinstance(given.value.value, ast.Name):
            yield given.value.value


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node binds, in whatever scope; those of ``ast.Name`` are left out."""
    if isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, (ast.Global, ast.Nonlocal)):
        yield from node.names
    elif isinstance(node, _NAMED):
        yield node.name or ""
    elif isinstance(node, ast.MatchMapping):
        yield node.rest or ""
