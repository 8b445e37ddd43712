"""Test harness for authors of rule packs. Cases state the violations of a rule; the harness checks the rule contract.

    from kbitlint.testing import Case, hold

    def test_the_rule():
        hold(MyRule, flagged=[Case(faulty, {"model.norm"})], clean=[Case(good)])

    def test_the_rule_on_scripts():
        hold(MyRule, flagged=[Script(FAULTY, {9})], clean=[Script(GOOD)])

Every failure is an AssertionError that names the line of the contract and the case.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint import api, engine, registry, rule_docs
from kbitlint.audit import scripts
from kbitlint.context import TrainingContext
from kbitlint.fixes.files import mend
from kbitlint.fixes.model import fix_model
from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.collect import collect
from kbitlint.rule import CODE, SLUG
from kbitlint.source import documents
from kbitlint.violation import Safety, Surface

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kbitlint.rule import Rule
    from kbitlint.violation import Violation

__all__ = ["Case", "Script", "hold", "hold_document", "state_of"]


@dataclass(frozen=True, slots=True)
class Case:
    """A model, with the paths at which the rule must report it."""

    build: Callable[[], Any]
    """Builds a new model at every call."""
    shows: Iterable[str] = ()
    """The exact paths of the violations; none for a look-alike that the rule must not report."""
    context: TrainingContext = field(default_factory=TrainingContext)
    trace: bool = False
    """Whether the rule checks the trace, so that the harness traces a step without weights."""
    trains: bool = True
    """Whether the model can take a training step after all fixes. False for models without weights."""

    @property
    def name(self) -> str:
        """Return the name of the case in failures."""
        return getattr(self.build, "__name__", repr(self.build))


@dataclass(frozen=True, slots=True)
class Script:
    """The text of a training script or configuration, with the lines at which the rule must report it."""

    text: str
    shows: Iterable[int] = ()
    """The exact lines of the violations; none for a look-alike that the rule must not report."""
    context: TrainingContext = field(default_factory=TrainingContext)
    name: str = "train.py"
    """The name of the file; its ending tells the language: ``.py``, ``.yaml``."""


def hold(rule: type[Rule], *, flagged: Iterable[Case | Script] = (), clean: Iterable[Case | Script] = ()) -> None:
    """Check a rule against its cases and against the contract of rules.

    Args:
        rule: The class of the rule; it need not be installed.
        flagged: Models and scripts that the rule must report, at exactly their paths or lines.
        clean: Look-alikes that the rule must not report.

    Raises:
        AssertionError: If a case has other violations, or the rule breaks a line of the contract.
    """
    hold_document(rule)
    for case in flagged:
        _must(bool(set(case.shows)), f"{case.name}: a flagged case names the paths or lines that it shows")
        if isinstance(case, Script):
            _hold_script(rule(), case)
        else:
            _hold_case(rule(), case)
            _hold_fix(rule(), case)
    for case in clean:
        _must(not set(case.shows), f"{case.name}: a clean case shows nothing")
        if isinstance(case, Script):
            _hold_script(rule(), case)
        else:
            _hold_case(rule(), case)


def hold_document(rule: type[Rule]) -> None:
    """Check the shape of a rule: its code, its slug, and every section of its document.

    Raises:
        AssertionError: If the rule breaks a line of the contract.
    """
    sections = rule_docs.sections(rule)
    _must(CODE.fullmatch(rule.meta.code) is not None, f"code {rule.meta.code!r} is capital letters and three digits")
    _must(SLUG.fullmatch(rule.meta.slug) is not None, f"slug {rule.meta.slug!r} is words joined by hyphens")
    _must(rule.title().endswith("."), "the first line of the document is a sentence")
    _must(
        tuple(sections) == rule_docs.SECTIONS, f"the document has the sections {', '.join(rule_docs.SECTIONS)}, in this order"
    )
    _must(all(sections.values()), "no section of the document is empty")
    _must(bool(rule.checks()), "the rule overrides a check")


def state_of(model: Any) -> dict[str, object]:
    """Return the state of a model that a check must not change and that undoing a fix must restore."""
    import torch  # rule packs import this module without it

    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    state: dict[str, object] = {}
    for name, module in model.named_modules():
        own = {key: repr(value) for key, value in module.__dict__.items() if isinstance(value, (bool, int, str, torch.dtype))}
        state[f"{name}:flags"] = own
        state[f"{name}:hooks"] = [list(module.__dict__[kind]) for kind in hooks if kind in module.__dict__]
        state[f"{name}:forward"] = repr(module.__dict__.get("forward"))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        values = None if tensor.is_meta else tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        state[f"{name}:tensor"] = (str(tensor.dtype), tuple(tensor.shape), tensor.requires_grad, values)
    config: Any = getattr(model, "config", None)
    state["config"] = config.to_json_string() if hasattr(config, "to_json_string") else repr(config)
    return state


def _hold_script(rule: Rule, case: Script) -> None:
    """Check the lines that a rule reports of a script, and that its fix is made once and breaks nothing else."""
    path, others = Path(case.name), tuple(known for known in registry.all_rules() if known.meta.code != rule.meta.code)

    def found(rules: tuple[Rule, ...], text: str) -> tuple[Violation, ...]:
        document = documents.parse(path, text.encode(), case.name)
        _must(document is not None, f"{case.name}: nothing in the text concerns k-bit training, so no rule reads it")
        assert document is not None  # noqa: S101  # for types
        outcome = scripts.run(rules, document.facts, case.context)[0]
        for crash in outcome.crashes:
            raise AssertionError(f"{case.name}: a check raises nothing but Unchecked:\n{crash.traceback}")
        return outcome.violations

    first = found((rule,), case.text)
    _must(first == found((rule,), case.text), f"{case.name}: a check is deterministic")
    shown, expected = sorted({v.at.line or 0 for v in first}), sorted(set(case.shows))
    _must(shown == expected, f"{case.name}: shows lines {shown}, not {expected}")
    for violation in first:
        _must(not violation.message.endswith("."), f"{case.name}: a message has no full stop: {violation.message!r}")
        _must(violation.surface is Surface.SOURCE, f"{case.name}: a violation is passed surface=Surface.SOURCE")
    fixed = mend(path, case.name, (rule,), case.context, Safety.UNSAFE, case.text.encode())
    if fixed is None or not fixed.edits:
        return
    new = {v.code for v in found(others, fixed.after)} - {v.code for v in found(others, case.text)}
    _must(not new, f"{case.name}: a fix causes no violation of another rule: {sorted(new)}")
    again = mend(path, case.name, (rule,), case.context, Safety.UNSAFE, fixed.after.encode())
    _must(again is not None and not again.edits, f"{case.name}: a fix twice is a fix once")


def _look(rule: Rule, model: Any, case: Case) -> tuple[Violation, ...]:
    facts, _ = collect(model, case.context, trace=case.trace and engine.needs_trace([rule]))
    outcome = engine.run([rule], facts, case.context)
    for crash in outcome.crashes:
        raise AssertionError(f"{case.name}: a check raises nothing but Unchecked:\n{crash.traceback}")
    return outcome.violations


def _hold_case(rule: Rule, case: Case) -> None:
    model = case.build()
    before = state_of(model)
    first, second = _look(rule, model, case), _look(rule, model, case)
    _must(state_of(model) == before, f"{case.name}: a check changes nothing")
    _must(first == second, f"{case.name}: a check is deterministic")
    shown, expected = sorted({v.at.path for v in first}), sorted(set(case.shows))
    _must(shown == expected, f"{case.name}: shows {shown}, not {expected}")
    for violation in first:
        _must(not violation.message.endswith("."), f"{case.name}: a message has no full stop: {violation.message!r}")
        _must(violation.surface in (Surface.MODEL, Surface.TRACE), f"{case.name}: a violation names the surface it was seen on")


def _hold_fix(rule: Rule, case: Case) -> None:
    model = case.build()
    if not any(v.fix and v.fix.safety is not Safety.DISPLAY for v in _look(rule, model, case)):
        return
    before, others = state_of(model), [known for known in registry.all_rules() if known.meta.code != rule.meta.code]
    known = _codes(others, model, case)
    fix_model(model, [rule], case.context, Safety.UNSAFE, trace=case.trace)
    _must(not _look(rule, model, case), f"{case.name}: a fix removes its violation")
    new = _codes(others, model, case) - known
    _must(not new, f"{case.name}: a fix causes no violation of another rule: {sorted(new)}")
    once = state_of(model)
    again, _ = fix_model(model, [rule], case.context, Safety.UNSAFE, trace=case.trace)
    _must(not again.edits and state_of(model) == once, f"{case.name}: a fix twice is a fix once")
    api.undo(model)
    _must(state_of(model) == before, f"{case.name}: undo restores every bit")
    if case.trains:
        _hold_training(case)


def _codes(rules: Iterable[Rule], model: Any, case: Case) -> set[tuple[str, str]]:
    rules = list(rules)
    facts, _ = collect(model, case.context, trace=False)
    return {(v.code, v.at.path) for v in engine.run(rules, facts, case.context).violations}


def _hold_training(case: Case) -> None:
    """Check that after all fixes a real training step gives every trainable parameter a finite gradient."""
    from kbitlint.model.probe import probe  # imports torch

    model = case.build()
    fix_model(model, registry.all_rules(), case.context, Safety.UNSAFE, trace=case.trace)
    seen = probe(model)
    _must(seen.failure is None, f"{case.name}: after all fixes a training step works: {seen.failure}")


def _must(holds: bool, line: str) -> None:  # noqa: FBT001  # an assertion with its message
    if not holds:
        raise AssertionError(line)
