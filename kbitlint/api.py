"""check, fix, plan, undo, assert_ready and load_prepared: what notebooks, tests and the command line call."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint import engine, manifest, registry
from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError, TargetError, one_line
from kbitlint.extras import require_model_extra
from kbitlint.opening import FACTORIES, Opened, Options, apply_stored, has_weights, load_target, open_target
from kbitlint.target import Kind, Target, parse
from kbitlint.violation import Applied, Edit, Probe, Report, Safety, Severity, Surface

if TYPE_CHECKING:
    from kbitlint.rule import Rule


def _options(options: dict[str, Any]) -> Options:
    names = {field.name for field in dataclasses.fields(Options)}
    unknown = sorted(set(options) - names)
    if unknown:
        raise TypeError(f"unknown argument {unknown[0]!r}; known are {', '.join(sorted(names))}")
    values = {name: value for name, value in options.items() if value is not None}
    for name in ("select", "ignore"):
        value = values.get(name, ())
        values[name] = (value,) if isinstance(value, str) else tuple(value)
    return Options(**values)


def check(target: Any, **options: Any) -> Report:
    """Audit a model, a Trainer, or what a target string names.

    Args:
        target: A ``torch.nn.Module`` (a PeftModel too), a ``Trainer``, or a target string: a checkpoint or adapter
            folder, a Hub id, ``file.py:factory``, ``pkg.mod:factory``.
        **options: ``select`` and ``ignore`` (codes, prefixes or slugs), ``context`` (a TrainingContext), and for
            targets that are named: ``quantize`` (nf4, fp4, int8 or none), ``meta``, ``trust_remote_code``.

    Raises:
        KbitlintError: The target cannot be read, built or run; the message is one line.
    """
    chosen = _options(options)
    rules = registry.select(chosen.select, chosen.ignore)
    if _is_live(target):
        return _check_live(target, rules, chosen)
    wants_model = any(Surface.MODEL in rule.checks() for rule in rules)
    return _audit(open_target(parse(str(target)), chosen, model=wants_model), rules, chosen)


def fix(target: Any, *, unsafe: bool = False, device: str | None = None, probe: bool | None = None, **options: Any) -> Report:
    """Audit, fix what can be fixed, and audit again.

    A live model or a Trainer's model is fixed in place, where it is. A checkpoint folder is loaded on ``device``,
    fixed and probed there, and the edits are written to ``kbitlint.json`` beside config.json. For a factory the
    report holds the lines to add.

    Args:
        target: As for ``check``.
        unsafe: Also apply fixes that may change what is trained or computed.
        device: Where named targets are loaded: ``cuda`` (the default) or ``cpu``.
        probe: Run one forward and backward afterwards; by default for named targets only.
        **options: As for ``check``.

    Raises:
        KbitlintError: As for ``check``, or there is no CUDA and no other device was named.
    """
    chosen = _options(options)
    rules = registry.select(chosen.select, chosen.ignore)
    wanted = Safety.UNSAFE if unsafe else Safety.SAFE
    if _is_live(target):
        return _fix_live(target, rules, chosen, wanted, probe=bool(probe))
    named = parse(str(target))
    place = _device(device, needed=not chosen.meta)
    return _fix_named(named, rules, chosen, wanted, place, probe=probe is not False)


def plan(model: Any, *, unsafe: bool = False, **options: Any) -> tuple[Edit, ...]:
    """The edits that ``fix`` would start with, as data; nothing is changed."""
    from kbitlint.fixer import edits_of

    return edits_of(check(model, **options).violations, Safety.UNSAFE if unsafe else Safety.SAFE)


def undo(model: Any) -> int:
    """Take back, bit for bit, every fix that was applied to this model object; gives how many there were."""
    from kbitlint.model import edits

    return edits.undo(_model_of(model))


def assert_ready(target: Any, *, fail_on: str | Severity = Severity.WARNING, **options: Any) -> None:
    """Raise AssertionError with the text report unless the audit is clean: the assert for people's own tests."""
    from kbitlint.report.text import render

    report = check(target, **options)
    if report.exit_code(Severity(fail_on) if isinstance(fail_on, str) else fail_on):
        raise AssertionError("\n" + render(report, color=False, width=80))


def load_prepared(folder: str | Path, *, device: str | None = None, **kwargs: Any) -> Any:
    """Load the quantized model of a folder that ``kbitlint --fix`` prepared, and apply what it wrote.

    Args:
        folder: A checkpoint or adapter folder with a ``kbitlint.json``.
        device: Where to load it; ``cuda`` if there is one, else ``cpu``.
        **kwargs: For ``from_pretrained``: ``quantization_config``, ``dtype``, ...

    Raises:
        TargetError: The folder was not prepared, or its edits do not fit the model.
    """
    target = parse(str(folder))
    prepared = manifest.read(target.folder)
    if prepared is None:
        raise TargetError(folder, f"has no {manifest.NAME}; `kbitlint --fix {folder}` writes it")
    require_model_extra("loading a model")
    from kbitlint.model.loading import load

    model = load(target, device or _any_device(), prepared.quantize, trust_remote_code=False, arguments=kwargs)
    apply_stored(model, prepared, target)
    return model


# -------------------------------------------------------------------------------------------- live models


def _is_live(target: Any) -> bool:
    if isinstance(target, (str, Path)):
        return False
    if "torch" not in sys.modules:
        raise KbitlintError(f"a {type(target).__name__} is neither a target string nor a model")
    from torch import nn

    from kbitlint.model.build import is_trainer

    if not (isinstance(target, nn.Module) or is_trainer(target)):
        raise KbitlintError(f"a {type(target).__name__} is neither a target string, nor a model, nor a Trainer")
    return True


def _model_of(target: Any) -> Any:
    from torch import nn

    return target if isinstance(target, nn.Module) else target.model


def _context_of(target: Any, context: TrainingContext) -> TrainingContext:
    """What the Trainer's arguments say, where there is a Trainer; what the caller says wins."""
    if _model_of(target) is target:
        return context
    read = TrainingContext.from_training_arguments(target.args)
    given = {f.name: getattr(context, f.name) for f in dataclasses.fields(context) if getattr(context, f.name) is not None}
    return dataclasses.replace(read, **given)


def _check_live(target: Any, rules: tuple[Rule, ...], options: Options) -> Report:
    from kbitlint.model.facts import collect

    facts = collect(_model_of(target))
    outcome = engine.run(rules, {Surface.MODEL: facts}, _context_of(target, options.context))
    return _report("", facts, outcome)


def _fix_live(target: Any, rules: tuple[Rule, ...], options: Options, wanted: Safety, *, probe: bool) -> Report:
    from kbitlint.fixer import fix_model
    from kbitlint.model.facts import collect
    from kbitlint.model.probe import probe as run_probe

    model = _model_of(target)
    applied, outcome = fix_model(model, rules, _context_of(target, options.context), wanted)
    if probe:
        applied = dataclasses.replace(applied, probe=run_probe(model))
    return _report("", collect(model), outcome, applied=applied)


def _report(name: str, facts: Any, outcome: engine.Outcome, **further: Any) -> Report:
    return Report(
        target=name,
        summary=facts.summary() if facts is not None else "",
        violations=outcome.violations,
        skips=(*outcome.skips, *further.pop("skips", ())),
        crashes=outcome.crashes,
        ran=outcome.ran,
        weights_read=facts is not None and not facts.on_meta,
        **further,
    )


def _audit(opened: Opened, rules: tuple[Rule, ...], options: Options) -> Report:
    """Run the rules over everything that a named target offers."""
    facts: dict[Surface, Any] = {}
    if opened.files is not None:
        facts[Surface.FILES] = opened.files
    context, model = options.context, None
    if opened.live is not None:
        from kbitlint.model.facts import collect

        model = facts[Surface.MODEL] = collect(_model_of(opened.live))
        context = _context_of(opened.live, context)
    outcome = engine.run(rules, facts, context)
    return _report(opened.target.text, model, outcome, notes=opened.notes, skips=opened.skips)


# ---------------------------------------------------------------------------------------- fixing named targets


def _any_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _device(device: str | None, *, needed: bool) -> str:
    """The device to fix on. Without CUDA one has to be named, so that nobody probes on the wrong one unaware."""
    if device is None and not needed:
        return "cpu"
    wanted = device or "cuda"
    if wanted.split(":")[0] == "cpu":
        return wanted
    require_model_extra("--fix")
    import torch

    try:
        torch.device(wanted)
    except RuntimeError as error:
        raise KbitlintError(f"--device {wanted}: {one_line(error)}") from error
    if wanted.split(":")[0] == "cuda" and not torch.cuda.is_available():
        raise KbitlintError("--fix applies on CUDA and there is none here; --device cpu works everywhere")
    return wanted


def _fix_named(
    target: Target, rules: tuple[Rule, ...], options: Options, wanted: Safety, device: str, *, probe: bool
) -> Report:
    if target.kind is Kind.FILE:
        raise TargetError(target.text, "a single file cannot be fixed yet: name its folder")
    if target.kind is Kind.HUB:
        raise TargetError(
            target.text, "a Hub id cannot be fixed in place: download it (hf download) or name the factory that loads it"
        )
    from kbitlint.fixer import fix_model
    from kbitlint.model.facts import collect

    factory = target.kind in FACTORIES
    opened = open_target(target, options) if factory or not has_weights(target) else load_target(target, options, device)
    model = _model_of(opened.live)
    if factory and not options.meta:
        _must_be_on(model, device, target)
    stored = None if factory else manifest.read(target.folder)
    applied, _ = fix_model(model, rules, _context_of(opened.live, options.context), wanted)
    edits = tuple(dict.fromkeys((*(stored.edits if stored else ()), *applied.edits)))
    on_meta = collect(model).on_meta
    if probe and not on_meta:
        from kbitlint.model.probe import probe as run_probe

        applied = dataclasses.replace(applied, probe=run_probe(model))
    if factory:
        applied = dataclasses.replace(applied, lines_to_add=_lines(applied, unsafe=wanted is Safety.UNSAFE))
    elif edits and not _failed(applied.probe):
        quantize = options.quantize or (stored.quantize if stored else None)
        written = manifest.write(target.folder, manifest.Manifest(edits, quantize), _versions())
        applied = dataclasses.replace(applied, left_behind=str(written))
    report = _audit(opened, rules, options)
    notes = report.notes + (("no weights in the folder, so no training step was run",) if on_meta and not factory else ())
    return dataclasses.replace(report, applied=applied, notes=notes)


def _failed(probe: Probe | None) -> bool:
    return probe is not None and probe.failure is not None


def _must_be_on(model: Any, device: str, target: Target) -> None:
    found = sorted({parameter.device.type for parameter in model.parameters()})
    wanted = device.split(":", maxsplit=1)[0]
    if found and found != [wanted]:
        raise TargetError(
            target.text, f"the factory put the model on {' and '.join(found)}, not on {wanted}: pass --device {found[0]}"
        )


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("bitsandbytes", "peft", "torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _lines(applied: Applied, *, unsafe: bool) -> tuple[str, ...]:
    if not applied.edits:
        return ()
    argument = ", unsafe=True" if unsafe else ""
    return ("import kbitlint", f"kbitlint.fix(model{argument})  # after the model is complete, before the optimizer is built")
