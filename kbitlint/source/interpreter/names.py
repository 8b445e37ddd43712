"""Names of functions: canonical names of library functions, and parameter names of functions of the file."""

from __future__ import annotations

import ast
import functools

from kbitlint.source.interpreter.objects import Class, Constant, Function, Object, Record, TrackedModel
from kbitlint.source.nodes import last_name
from kbitlint.upstream.calls import FUNCTIONS, TRAINERS, TRAINING_ARGUMENTS
from kbitlint.upstream.quantization import QUANTIZATION_CONFIGS

#: methods of models and tensors that cast, with their dtypes
CASTS = {"half": "float16", "bfloat16": "bfloat16", "float": "float32"}
BUILTINS = frozenset(
    {
        "dict",
        "getattr",
        "hasattr",
        "isinstance",
        "print",
        "len",
        "setattr",
        "open",
        "exit",
        "quit",
        "list",
        "tuple",
        "vars",
        "filter",
        "iter",
        "reversed",
        "enumerate",
        "super",
        "globals",
    }
)

#: functions that make a dict of another one, of keywords, or of both
DICTS = frozenset(
    (
        *("dict", "collections.OrderedDict", "types.MappingProxyType"),
        *("easydict.EasyDict", "box.Box", "munch.Munch", "munch.munchify", "addict.Dict", "ml_collections.ConfigDict"),
        *("omegaconf.OmegaConf.create", "omegaconf.OmegaConf.to_container", "omegaconf.DictConfig"),
    )
)
#: functions that make a list of what they go through
LISTS = frozenset(("list", "tuple", "set", "frozenset"))
COPIES = frozenset(("copy.copy", "copy.deepcopy"))
#: functions whose values are followed: those above, conversions, and those of several containers
CONTAINERS = (
    DICTS
    | LISTS
    | COPIES
    | {
        *("str", "int", "float", "zip", "dict.fromkeys", "collections.defaultdict", "collections.ChainMap"),
    }
)


@functools.lru_cache(maxsize=4_096)
def canonical(full: str) -> str:
    """Return the canonical form of a full name: library and last part, with the class of ``from_pretrained``.

    Libraries export one function under several names: ``peft.tuners.lora.LoraConfig`` becomes ``peft.LoraConfig``.
    """
    if full in ("torch.utils.checkpoint.checkpoint", "torch.utils.checkpoint.checkpoint_sequential"):
        return f"torch.{full.rpartition('.')[2]}"
    parts = full.split(".")
    if parts[0] == "torch" and parts[-1] == "checkpoint":
        return full
    if len(parts) > 2 and parts[-1] in ("from_pretrained", "from_config"):  # library, class, method
        return ".".join((parts[0], parts[-2], parts[-1]))
    if parts[0] in ("lightning", "pytorch_lightning", "lightning_fabric") and len(parts) > 1:
        return f"lightning.{parts[-1]}"
    if parts[0] == "diffusers" and parts[-1] == "PipelineQuantizationConfig":
        return f"diffusers.{parts[-1]}"
    if parts[0] in ("transformers", "peft", "trl", "torch", "accelerate", "deepspeed", "unsloth") and len(parts) > 1:
        return f"{parts[0]}.{parts[-1]}"
    if len(parts) == 1 or (len(parts) == 2 and parts[-1].endswith("from_pretrained")):  # class and method
        return _homes().get(parts[0], parts[0]) + "".join(f".{part}" for part in parts[1:])
    return full


@functools.cache
def _homes() -> dict[str, str]:
    """Return the full names of known functions and classes, by last part.

    A star import or another cell of a notebook binds a name without its library.
    """
    known = (*(api.name for api in FUNCTIONS), *TRAINERS, *TRAINING_ARGUMENTS)
    return {name.rpartition(".")[2]: name for name in known if name != "torch.checkpoint"} | {
        name: f"transformers.{name}" for name in QUANTIZATION_CONFIGS
    }


def parameters_of(function: Function | Class | TrackedModel) -> tuple[str, ...]:
    """Return the names of the positional parameters, without the receiver."""
    if isinstance(function, TrackedModel):
        return ()
    node = function.node if isinstance(function, Function) else function.method("__init__")
    if node is None or isinstance(node, ast.ClassDef):
        return _fields(function) if isinstance(function, Class) else ()
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    bound = isinstance(function, Class) or function.receiver is not None
    return tuple(names[1:] if bound else names)


def _fields(cls: Class) -> tuple[str, ...]:
    return tuple(
        item.target.id for item in cls.node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    )


def numbered(items: Record) -> bool:
    """Return whether a record holds a positional argument."""
    return any(name.isdigit() for name in items.items)


def known_text(value: Object) -> str | None:
    """Return the string of a constant; None for every other value."""
    return value.value if isinstance(value, Constant) and isinstance(value.value, str) else None


def lets_no_gradient_through(node: ast.expr) -> bool:
    """Return whether a context manager or decorator disables gradients: ``no_grad``, ``set_grad_enabled(False)``."""
    name = _last_name(node)
    return name in ("no_grad", "inference_mode") or (name == "set_grad_enabled" and _switched(node) is False)


def lets_gradients_through(node: ast.expr) -> bool:
    """Return whether a context manager enables gradients: ``enable_grad``, ``set_grad_enabled(True)``."""
    name = _last_name(node)
    return name == "enable_grad" or (name == "set_grad_enabled" and _switched(node) is not False)


def _switched(node: ast.expr) -> bool | None:
    """Return the constant that a call passes first; None if it passes another value."""
    given = [*node.args, *(word.value for word in node.keywords)] if isinstance(node, ast.Call) else []
    value = given[0].value if given and isinstance(given[0], ast.Constant) else None
    return value if isinstance(value, bool) else None


def makes_inference_tensors(node: ast.expr) -> bool:
    """Return whether tensors that a context manager or decorator surrounds are created under ``inference_mode``."""
    off = isinstance(node, ast.Call) and any(
        isinstance(value, ast.Constant) and value.value is False
        for value in (*node.args, *(word.value for word in node.keywords))
    )
    return _last_name(node) == "inference_mode" and not off


def _last_name(node: ast.expr) -> str:
    return last_name(node.func if isinstance(node, ast.Call) else node)
