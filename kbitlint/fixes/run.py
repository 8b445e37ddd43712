"""Fixes a target: loads it, fixes it, proves the fix with a training step, and writes the edits where they last.

Imports of ``kbitlint.model`` are inside functions: they load torch, and fixes of scripts and files need none.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.audit.open import OpenTarget, has_weights, load_target, open_target
from kbitlint.audit.options import is_left_out
from kbitlint.audit.run import audit, context_of, model_of, outline
from kbitlint.errors import KbitlintError, TargetError
from kbitlint.extras import require_model_extra
from kbitlint.files import manifest
from kbitlint.files.atomic import alone
from kbitlint.files.checkpoint import read_checkpoint
from kbitlint.fixes.files import leading_out, mend_files, mend_target, write
from kbitlint.fixes.model import fix_model
from kbitlint.fixes.preview import memory_fields, preview
from kbitlint.lazy_dataclass import dataclass
from kbitlint.report import Report, report_of
from kbitlint.result import Applied, Probe
from kbitlint.runtime import distributions
from kbitlint.target import FACTORIES, SOURCES, Kind, Target
from kbitlint.violation import Edit, Safety

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint import engine
    from kbitlint.audit.options import Options
    from kbitlint.fixes.files import FixedFile
    from kbitlint.rule import Rule


@dataclass(frozen=True, slots=True)
class Fixing:
    """How a target is fixed."""

    wanted: Safety = Safety.SAFE
    """The least safety of the fixes that are applied."""
    device: str | None = None
    """Where a named target is loaded; None for CUDA."""
    probe: bool | None = None
    """Whether to run one training step afterwards; None for named targets only."""
    optimizer: Any = None
    """An optimizer that holds parameters of a live model; None for a Trainer's own, if there is one."""


def fix(target: Target, rules: tuple[Rule, ...], options: Options, fixing: Fixing) -> Report:
    """Fix a target, audit it again, and write the edits of a checkpoint beside it.

    If the training step shows that the fix broke training, nothing is written. A folder is fixed by one process at a time.

    Raises:
        KbitlintError: There is no CUDA and no device was named, or another process fixes the folder.
    """
    if target.kind is Kind.LIVE:
        return _fix_live(target, rules, options, fixing)
    if is_left_out(target, options):
        return audit(OpenTarget(target), rules, options)
    device = _device(fixing.device, needed=not (options.meta or target.kind in (*SOURCES, Kind.FILE)))
    fixing = dataclasses.replace(fixing, device=device, probe=fixing.probe is not False)
    if target.kind in (Kind.HUB, *FACTORIES):
        return _fix_named(target, rules, options, fixing)
    with alone(Path(target.place) if target.kind in SOURCES else target.folder, target.text):
        return _fix_named(target, rules, options, fixing)


def _device(device: str | None, *, needed: bool) -> str:
    """Return the device to fix on.

    Raises:
        KbitlintError: There is no such device, or no CUDA and no device was named: a probe on a CPU must be asked for.
    """
    if device is None and not needed:
        return "cpu"
    if device == "cpu":
        return device
    require_model_extra("--fix")
    from kbitlint.model.devices import usable  # imports torch

    if device is not None:
        return usable(device)
    import torch

    if not torch.cuda.is_available():
        raise KbitlintError("--fix applies on CUDA and there is none here; --device cpu works everywhere")
    return "cuda"


def _fix_named(target: Target, rules: tuple[Rule, ...], options: Options, fixing: Fixing) -> Report:
    if target.kind in SOURCES:
        return _fix_source(target, rules, options, fixing.wanted)
    mended = [] if target.kind in (Kind.HUB, *FACTORIES) else _fix_files(target, rules, options, fixing.wanted)
    if target.kind is Kind.FILE:
        report = _audited(open_target(target, options), rules, options)
        return dataclasses.replace(report, applied=Applied(_edits(mended), len(mended[:1]), diff=_diff(mended)))
    if target.kind is Kind.HUB:
        raise TargetError(
            target.text, "a Hub id cannot be fixed in place: download it (hf download) or name the factory that loads it"
        )
    return _fix_model(_loaded(target, options, str(fixing.device)), rules, options, fixing, mended)


def _audited(opened: OpenTarget, rules: tuple[Rule, ...], options: Options) -> Report:
    return preview(audit(opened, rules, options), opened, rules, options)


def _loaded(target: Target, options: Options, device: str) -> OpenTarget:
    """Open a function, or a folder with its weights if it holds any."""
    if target.kind not in FACTORIES:
        return load_target(target, options, device) if has_weights(target) else open_target(target, options)
    opened = open_target(target, options)
    if not options.meta:
        _must_be_on(model_of(opened.live), device, target)
    return opened


def _fix_model(
    opened: OpenTarget, rules: tuple[Rule, ...], options: Options, fixing: Fixing, mended: list[FixedFile]
) -> Report:
    """Fix the model of a named target, whose files are fixed already, and prove it."""
    target, model = opened.target, model_of(opened.live)
    factory = target.kind in FACTORIES

    def apply() -> Applied:
        context = context_of(opened.live, options.context)
        with opened.confined():
            return fix_model(model, rules, context, fixing.wanted, trace=options.trace, norms=options.norms)[0]

    with opened.confined():
        before = memory_fields(opened.live, context_of(opened.live, options.context), options) if options.memory else {}
    applied = apply()
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    if fixing.probe and not on_meta:
        applied = dataclasses.replace(applied, probe=proof(model, apply, options))
    applied = _made_to_last(applied, target, options, fixing)
    if mended:
        opened = dataclasses.replace(opened, files=read_checkpoint(target.folder))
        applied = dataclasses.replace(applied, edits=(*_edits(mended), *applied.edits), diff=_diff(mended))
    report = _audited(opened, rules, dataclasses.replace(options, memory=False))
    notes = report.notes + (("no weights in the folder, so no training step was run",) if on_meta and not factory else ())
    return dataclasses.replace(report, applied=applied, notes=notes, **before)


def _made_to_last(applied: Applied, target: Target, options: Options, fixing: Fixing) -> Applied:
    """Write the edits beside a checkpoint, or name the lines that a function needs; neither if the probe refutes the fix."""
    if applied.probe is not None and applied.probe.refutes:
        return applied
    if target.kind in FACTORIES:
        return dataclasses.replace(applied, lines_to_add=_lines(applied, unsafe=fixing.wanted is Safety.UNSAFE))
    stored = manifest.read(target.folder)
    edits = tuple(dict.fromkeys((*(stored.edits if stored else ()), *applied.edits)))
    if not edits:
        return applied
    quantize = options.quantize or (stored.quantize if stored else None)
    file = options.output or target.folder / manifest.NAME
    written = manifest.write(file, manifest.Manifest(edits, quantize), _versions())
    return dataclasses.replace(applied, left_behind=str(written))


def _edits(mended: list[FixedFile]) -> tuple[Edit, ...]:
    return tuple(edit for file in mended for edit in file.edits)


def _diff(mended: list[FixedFile]) -> str:
    return "\n".join(filter(None, (file.diff() for file in mended)))


def _fix_files(target: Target, rules: tuple[Rule, ...], options: Options, wanted: Safety) -> list[FixedFile]:
    """Change the JSON files of a checkpoint before its model is built from them."""
    if target.kind is not Kind.FILE:
        manifest.must_be_writable(options.output or target.folder / manifest.NAME)
    mended = mend_files(target, rules, options.context, wanted)
    write(mended, target.folder)
    return mended


def _fix_source(target: Target, rules: tuple[Rule, ...], options: Options, wanted: Safety) -> Report:
    """Fix source files in place; all edits are planned before the first file is written."""
    mended = mend_target(target, rules, options.context, wanted)
    write(mended)
    applied = Applied(
        _edits(mended),
        max((file.passes for file in mended), default=0),
        sum(file.held_back for file in mended),
        diff=_diff(mended),
    )
    report = _audited(open_target(target, options), rules, options)
    left = tuple(f"{name} leads out of the folder, and is fixed where it is named only" for name in leading_out(target))
    refused = tuple(file.refused for file in mended if file.refused)
    return dataclasses.replace(report, applied=applied, notes=(*report.notes, *refused, *left))


def _fix_live(target: Target, rules: tuple[Rule, ...], options: Options, fixing: Fixing) -> Report:
    """Fix a live model, or the model of a Trainer, in place; the report is that of the audit that ended the fix."""
    from kbitlint.model.inspect.walk import collect

    live, model = target.live, model_of(target.live)
    optimizer = fixing.optimizer
    if optimizer is None and model is not live:
        optimizer = getattr(live, "optimizer", None)

    def apply() -> tuple[Applied, engine.Outcome]:
        context = context_of(live, options.context)
        return fix_model(model, rules, context, fixing.wanted, trace=options.trace, norms=options.norms, optimizer=optimizer)

    before = memory_fields(model, context_of(live, options.context), options) if options.memory else {}
    applied, outcome = apply()
    if fixing.probe:
        applied = dataclasses.replace(applied, probe=proof(model, lambda: apply()[0], options))
    facts = collect(model)
    return report_of("", facts, outcome, applied=applied, outline=outline(model, facts, options), **before)


def proof(model: Any, apply: Callable[[], Applied], options: Options) -> Probe:
    """Return the probe of the fixed model. If its step fails, the unfixed model is probed too, to judge the fix alone."""
    from kbitlint.model.edits.journal import undo as take_back
    from kbitlint.model.probe import probe

    batch, seq_len = options.probe_batch, options.probe_seq
    proof = probe(model, batch=batch, seq_len=seq_len)
    if proof.failure is None:
        return proof
    take_back(model)
    unfixed = probe(model, batch=batch, seq_len=seq_len, at_embeddings=proof.at_embeddings)
    apply()
    return dataclasses.replace(proof, as_before=unfixed.failure is not None)


def _must_be_on(model: Any, device: str, target: Target) -> None:
    found = sorted({parameter.device.type for parameter in model.parameters()})
    wanted = device.split(":", maxsplit=1)[0]
    if found and found != [wanted]:
        raise TargetError(
            target.text, f"the factory put the model on {' and '.join(found)}, not on {wanted}: pass --device {found[0]}"
        )


def _versions() -> dict[str, str]:
    known = {package: distributions.version(package) for package in ("bitsandbytes", "peft", "torch", "transformers")}
    return {package: version for package, version in known.items() if version}


def _lines(applied: Applied, *, unsafe: bool) -> tuple[str, ...]:
    if not applied.edits:
        return ()
    argument = ", unsafe=True" if unsafe else ""
    return ("import kbitlint", f"kbitlint.fix(model{argument})  # after the model is complete, before the optimizer is built")
