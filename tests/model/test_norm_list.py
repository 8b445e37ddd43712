"""Every class with parameters of its own, over the architectures of four mappings, against labels read off its code.

``norms.tsv`` has one line per class and one per vector that a class other than a norm holds by itself. The label says
what the class's own forward does: ``norm``; ``not``; ``block``, which is no norm because it holds modules with parameters.
"""

from __future__ import annotations

import ast
import csv
import functools
import importlib
import inspect
import textwrap
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from kbitlint.model.layers.norms import is_bare_norm, is_norm

HERE = Path(__file__).parents[1]
with (HERE / "data" / "norms.tsv").open(encoding="utf-8", newline="") as lines:
    ROWS = list(csv.DictReader(lines, delimiter="\t"))
#: (module, class) -> label
CLASSES = {(row["module"], row["class"]): row["label"] for row in ROWS if not row["parameter"]}
#: (module, class, parameter) -> label
PARAMETERS = {(row["module"], row["class"], row["parameter"]): row["label"] for row in ROWS if row["parameter"]}
#: torch's own layers of matrices need no reading
TEXTBOOK = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)


def named(module, name):
    """The listed class, or None where the installed libraries do not have it."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            return None  # the module itself is missing; one that fails to import is a failure
        raise
    return getattr(found, name, None)


def made(cls, label):
    """An instance that only has what the detector looks at: its class, a vector of its own, and a child if it is a block."""
    module = cls.__new__(cls)
    nn.Module.__init__(module)
    module.register_parameter("weight", nn.Parameter(torch.empty(4, device="meta")))
    if label == "block":
        module.add_module("projection", nn.Linear(4, 4, device="meta"))
    return module


def test_the_detector_agrees_with_every_label():
    wrong, found = [], 0
    for (module, name), label in CLASSES.items():
        cls = named(module, name)
        if cls is None:
            continue
        found += 1
        if is_norm(made(cls, label)) is not (label == "norm"):
            wrong.append(f"{module}.{name} is labelled {label}")
    assert not wrong
    assert found > len(CLASSES) // 4  # a list that applies to nothing would pass too


def test_no_vector_outside_a_norm_is_taken_for_one_unless_the_list_says_so():
    wrong = [key for key, label in PARAMETERS.items() if is_bare_norm(key[2], 1) is not (label == "norm")]
    assert not wrong


def test_every_line_of_the_list_is_one_that_a_reader_can_trust():
    assert {row["label"] for row in ROWS} == {"norm", "not", "block"}
    assert len(ROWS) == len(CLASSES) + len(PARAMETERS)
    assert {key[:2] for key in PARAMETERS} <= {key for key, label in CLASSES.items() if label != "norm"}


def body(cls):
    """What a class does: its code without its name, docstrings and annotations."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    tree.name, tree.decorator_list = "", []
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in (*node.args.args, *node.args.kwonlyargs):
                argument.annotation = None
    return ast.dump(tree)


@functools.lru_cache(maxsize=1)
def known_bodies():
    """Body -> (module, class) of the listed classes, for copies that transformers adds in every release."""
    classes = ((key, named(*key)) for key in CLASSES)
    return {body(cls): key for key, cls in classes if cls is not None and not key[0].startswith("torch.")}


def listed(cls):
    """The (module, class) whose label holds for a class: its own, or that of a class with the very same code."""
    key = (cls.__module__, cls.__qualname__)
    return key if key in CLASSES else known_bodies().get(body(cls))


@pytest.mark.skipif(
    int(transformers.__version__.partition(".")[0]) < 5, reason="the tiny configs of benchmarks/ are made for transformers 5"
)
def test_every_class_of_every_architecture_is_in_the_list_and_found_rightly():
    from huggingface_hub.errors import StrictDataclassError

    from benchmarks.truth import architectures

    transformers.utils.logging.set_verbosity_error()
    to_add, wrong, built = set(), set(), 0
    for task in architectures.COMMON:
        for model_type in architectures.architectures(task):
            try:
                model = architectures.build(task, model_type, "meta")
            except (ImportError, ValueError, StrictDataclassError):  # what needs another library, or a config that is refused
                continue
            built += 1
            for module in model.modules():
                look_at(module, to_add, wrong)
    assert not to_add, "read each forward, then add to tests/data/norms.tsv:\n" + "\n".join(sorted(to_add))
    assert not wrong
    assert built >= 430


def look_at(module, to_add, wrong):
    cls, own = type(module), {name: p for name, p in module._parameters.items() if p is not None}
    if not own or (isinstance(module, TEXTBOOK) and cls.__module__.startswith("torch.")):
        return
    name = f"{cls.__module__}\t{cls.__qualname__}"
    key = listed(cls)
    if key is None:
        to_add.add(f"{name}\t\tnorm, not or block\twhy")
        return
    if is_norm(module) is not (CLASSES[key] == "norm"):
        wrong.add(f"{name} is labelled {CLASSES[key]}")
    for parameter, tensor in own.items() if CLASSES[key] != "norm" else ():
        if tensor.ndim > 1:
            if is_bare_norm(parameter, tensor.ndim):
                wrong.add(f"{name}\t{parameter} has {tensor.ndim} dimensions")
        elif (*key, parameter) not in PARAMETERS:
            to_add.add(f"{name}\t{parameter}\tnorm or not\twhy")
        elif is_bare_norm(parameter, tensor.ndim) is not (PARAMETERS[(*key, parameter)] == "norm"):
            wrong.add(f"{name}\t{parameter}")
