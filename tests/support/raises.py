"""The places of an installed library that refuse or ignore arguments: each `raise`, and each warning."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

WARNINGS = ("warnings.warn", "logger.warning", "logger.warning_once", "logger.info")
#: file of a library -> patterns of the functions that check the arguments of users
SCOPE = {
    "peft/tuners/*/config.py": ("*.__post_init__", "*.check_kwargs"),
    "peft/config.py": ("*.__post_init__",),
    "peft/mapping_func.py": ("get_peft_model",),
    "peft/peft_model.py": ("PeftModel._setup_prompt_encoder", "PeftModel.from_pretrained", "PeftModel.add_adapter"),
    "peft/tuners/lora/layer.py": ("LoraLayer.update_layer", "*.reset_lora_parameters", "*.orthogonal_init", "ParamWrapper.*"),
    "peft/tuners/lora/bnb.py": ("*.resolve_lora_variant",),
    "peft/tuners/lora/gptq.py": ("*.__init__", "*.resolve_lora_variant"),
    "peft/tuners/tuners_utils.py": ("BaseTuner._mark_only_adapters_as_trainable",),
    "transformers/utils/quantization_config.py": ("*Config.__init__", "*Config.post_init"),
    "transformers/training_args.py": ("TrainingArguments.__post_init__", "TrainingArguments._validate_args"),
    "transformers/trainer.py": ("Trainer.__init__", "Trainer._validate_args"),
    "trl/trainer/*_config.py": ("*.__post_init__",),
    "trl/trainer/*_trainer.py": ("*.__init__",),
    "bitsandbytes/nn/modules.py": ("*.__init__", "*.set_compute_type"),
    "bitsandbytes/functional.py": ("quantize_4bit", "get_4bit_type"),
}


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """One place that raises or warns."""

    file: str
    function: str
    message: str
    """The constant parts of the message, at most 90 characters."""


def sites():
    """Return every place within ``SCOPE`` in the installed libraries."""
    found = set()
    for pattern, functions in SCOPE.items():
        package, _, rest = pattern.partition("/")
        root = Path(importlib.util.find_spec(package).submodule_search_locations[0])
        for path in sorted(root.glob(rest)):
            name = f"{package}/{path.relative_to(root).as_posix()}"
            found |= {site for site in _of(path, name) if any(fnmatchcase(site.function, one) for one in functions)}
    return sorted(found)


def _of(path, name):
    todo = [(node, "") for node in ast.parse(path.read_text()).body]
    while todo:
        node, within = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            within = f"{within}.{node.name}" if within else node.name
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and ast.unparse(node.func) in WARNINGS):
            yield Site(name, within, _message(node))
        todo += [(child, within) for child in ast.iter_child_nodes(node)]


def _message(node):
    constants = sorted(
        (part for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)),
        key=lambda part: (part.lineno, part.col_offset),
    )
    return " ".join("".join(part.value for part in constants).split())[:90]
