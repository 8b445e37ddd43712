"""Members and parameters of the libraries' objects: each row against the installed libraries."""

from __future__ import annotations

import functools
import importlib
import inspect

import pytest
import torch
from script_cases import NEWEST

from kbitlint.upstream.objects.lookup import absent_member, members, parameters, refused_argument
from kbitlint.upstream.objects.returns import CONFIGS, ENTERED, FUNCTIONS, METHODS, PURE
from kbitlint.upstream.versions import installed, number

LIBRARIES = ("transformers", "peft", "trl", "datasets", "accelerate", "torch")
TABLES = {name: importlib.import_module(f"kbitlint.upstream.objects.{name}") for name in LIBRARIES}
CLASSES = sorted(owner for table in TABLES.values() for owner in table.MEMBERS)
CALLEES = sorted(callee for table in TABLES.values() for callee in table.CALLS)
PLACES = {
    "transformers.TrainOutput": "transformers.trainer_utils.TrainOutput",
    "transformers.PredictionOutput": "transformers.trainer_utils.PredictionOutput",
    "transformers.PreTrainedTokenizerBase": "transformers.PreTrainedTokenizerFast",
    "peft.PeftModel": "peft.PeftModelForCausalLM",
}
newest = pytest.mark.skipif(
    any(number(installed()[name])[:2] != number(NEWEST[name])[:2] for name in ("transformers", "peft", "trl")),
    reason="the rows describe the newest versions",
)


@functools.cache
def real(name):
    """Return the installed class, function or method of a full name."""
    parts = PLACES.get(name, name).split(".")
    owner = PLACES.get(".".join(parts[:2]))
    if owner is not None and len(parts) > 2:
        return getattr(real(".".join(parts[:2])), parts[2])
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        return functools.reduce(getattr, parts[cut:], found)
    raise AssertionError(name)


@newest
@pytest.mark.parametrize("owner", CLASSES)
def test_a_class_has_no_member_that_its_row_lacks(owner):
    have = [name for name in dir(real(owner)) if not name.startswith("_")]

    assert [name for name in have if absent_member(owner, name, NEWEST, called=True)] == []


@newest
@pytest.mark.parametrize("owner", CLASSES)
def test_a_removed_member_is_no_member_of_the_installed_class(owner):
    removed = [name for name, (_, until, _) in members(owner).items() if until]

    assert [name for name in removed if name in dir(real(owner))] == []


@newest
@pytest.mark.parametrize("callee", CALLEES)
def test_a_callee_takes_what_its_row_says(callee):
    found = real(callee)
    signature = inspect.signature(found.__init__ if inspect.isclass(found) else found)
    taken = [name for name, value in signature.parameters.items() if name != "self" and value.kind is not value.VAR_KEYWORD]
    plain = [name for name in taken if signature.parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL]

    assert [name for name in plain if refused_argument(callee, name, NEWEST)] == []
    if not any(value.kind is value.VAR_KEYWORD for value in signature.parameters.values()):
        row = [name for name in parameters(callee) if refused_argument(callee, name, NEWEST) is None]
        assert sorted(set(row) - set(plain)) == []


@newest
def test_each_row_of_results_is_about_an_installed_function_or_method():
    python = ("list", "dict")
    for owner, methods in METHODS.items():
        have = dir(__builtins__[owner] if owner in python else real(owner))
        assert [name for name in (*methods, *PURE.get(owner, ())) if name not in have and name not in members(owner)] == []
    names = [*FUNCTIONS, *CONFIGS, *(f"peft.{one}" for one in ENTERED if one.startswith("Peft"))]
    known = [name for name in names if "." in name and not name.startswith("peft.prepare_model_for_int8")]
    assert [name for name in known if real(name) is None] == []


@newest
def test_what_an_optimizer_has_at_run_time():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])

    assert [name for name in vars(optimizer) if absent_member("torch.optim.Optimizer", name, NEWEST, called=False)] == []
