"""Fixes a named target on its device: load, fix, prove with a training step, leave something behind that lasts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.audit.open import has_weights, load_target, open_target
from kbitlint.audit.run import audit, context_of, model_of, outline_fields
from kbitlint.errors import KbitlintError, TargetError, one_line
from kbitlint.extras import require_model_extra
from kbitlint.files import manifest
from kbitlint.files.atomic import alone
from kbitlint.files.checkpoint import read_checkpoint
from kbitlint.fixes.preview import memory_fields
from kbitlint.report import Report, report_of
from kbitlint.result import Applied, Probe
from kbitlint.target import FACTORIES, SOURCES, Kind, Target
from kbitlint.violation import Safety

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint import engine
    from kbitlint.audit.options import Options
    from kbitlint.fixes.files import FixedFile
    from kbitlint.rule import Rule


def device_for(device: str | None, *, needed: bool) -> str:
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


def fix_named(target: Target, rules: tuple[Rule, ...], options: Options, wanted: Safety, device: str, *, probe: bool) -> Report:
    """Fix what a target string names, audit it again, and keep the edits beside a checkpoint.

    Where the training step shows that the fix broke training, nothing is written. One fix at a time works in a folder.

    Raises TargetError where another one works there.
    """
    if target.kind in (Kind.HUB, *FACTORIES):
        return _fix_named(target, rules, options, wanted, device, probe=probe)
    with alone(Path(target.place) if target.kind in SOURCES else target.folder, target.text):
        return _fix_named(target, rules, options, wanted, device, probe=probe)


def _fix_named(
    target: Target, rules: tuple[Rule, ...], options: Options, wanted: Safety, device: str, *, probe: bool
) -> Report:
    if target.kind in SOURCES:
        return _fix_source(target, rules, options, wanted)
    mended = [] if target.kind in (Kind.HUB, *FACTORIES) else _fix_files(target, rules, options, wanted)
    in_files = tuple(edit for file in mended for edit in file.edits)
    diff = "\n".join(file.diff() for file in mended)
    if target.kind is Kind.FILE:
        report = audit(open_target(target, options), rules, options)
        return dataclasses.replace(report, applied=Applied(in_files, len(mended[:1]), diff=diff))
    if target.kind is Kind.HUB:
        raise TargetError(
            target.text, "a Hub id cannot be fixed in place: download it (hf download) or name the factory that loads it"
        )
    from kbitlint.fixes.model import fix_model

    factory = target.kind in FACTORIES
    opened = open_target(target, options) if factory or not has_weights(target) else load_target(target, options, device)
    model = model_of(opened.live)
    if factory and not options.meta:
        _must_be_on(model, device, target)
    stored = None if factory else manifest.read(target.folder)

    def apply() -> Applied:
        context = context_of(opened.live, options.context)
        with opened.confined():
            return fix_model(model, rules, context, wanted, trace=options.trace, norms=options.norms)[0]

    with opened.confined():
        before = memory_fields(opened.live, context_of(opened.live, options.context), options) if options.memory else {}
    applied = apply()
    edits = tuple(dict.fromkeys((*(stored.edits if stored else ()), *applied.edits)))
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    if probe and not on_meta:
        applied = dataclasses.replace(applied, probe=proof(model, apply, options))
    refuted = applied.probe is not None and applied.probe.refutes
    if factory and not refuted:
        applied = dataclasses.replace(applied, lines_to_add=_lines(applied, unsafe=wanted is Safety.UNSAFE))
    elif edits and not refuted:
        quantize = options.quantize or (stored.quantize if stored else None)
        written = manifest.write(
            options.output or target.folder / manifest.NAME, manifest.Manifest(edits, quantize), _versions()
        )
        applied = dataclasses.replace(applied, left_behind=str(written))
    if mended:
        opened = dataclasses.replace(opened, files=read_checkpoint(target.folder))
        applied = dataclasses.replace(applied, edits=(*in_files, *applied.edits), diff=diff)
    report = audit(opened, rules, dataclasses.replace(options, memory=False))
    notes = report.notes + (("no weights in the folder, so no training step was run",) if on_meta and not factory else ())
    return dataclasses.replace(report, applied=applied, notes=notes, **before)


def _fix_files(target: Target, rules: tuple[Rule, ...], options: Options, wanted: Safety) -> list[FixedFile]:
    """Change the JSON files of a checkpoint: what they say decides how the model is built."""
    from kbitlint.fixes.files import mend_files, write

    if target.kind is not Kind.FILE:
        manifest.must_be_writable(options.output or target.folder / manifest.NAME)
    mended = mend_files(target, rules, options.context, wanted)
    write(mended, target.folder)
    return mended


def _fix_source(target: Target, rules: tuple[Rule, ...], options: Options, wanted: Safety) -> Report:
    """Replace stretches of the files in place; all of them are planned before the first is written."""
    from kbitlint.fixes.files import leading_out, mend_target, write

    mended = mend_target(target, rules, options.context, wanted)
    write(mended)
    applied = Applied(
        tuple(edit for file in mended for edit in file.edits),
        max((file.passes for file in mended), default=0),
        sum(file.held_back for file in mended),
        diff="\n".join(filter(None, (file.diff() for file in mended))),
    )
    report = audit(open_target(target, options), rules, options)
    left = tuple(f"{name} leads out of the folder, and is fixed where it is named only" for name in leading_out(target))
    return dataclasses.replace(report, applied=applied, notes=(*report.notes, *left))


def proof(model: Any, apply: Callable[[], Applied], options: Options) -> Probe:
    """One training step on the fixed model; where it fails, one without the fix, so that the fix is judged alone."""
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


def fix_live(target: Any, rules: tuple[Rule, ...], options: Options, wanted: Safety, *, probe: bool, optimizer: Any) -> Report:
    """Fix a live model, or a Trainer's, and return the report of a second audit."""
    from kbitlint.fixes.model import fix_model
    from kbitlint.model.inspect.walk import collect

    model = model_of(target)
    held = optimizer if optimizer is not None or model is target else getattr(target, "optimizer", None)

    def apply() -> tuple[Applied, engine.Outcome]:
        context = context_of(target, options.context)
        return fix_model(model, rules, context, wanted, trace=options.trace, norms=options.norms, optimizer=held)

    before = memory_fields(model, context_of(target, options.context), options) if options.memory else {}
    applied, outcome = apply()
    if probe:
        applied = dataclasses.replace(applied, probe=proof(model, lambda: apply()[0], options))
    facts = collect(model)
    picture = outline_fields(model, facts, options.context, dataclasses.replace(options, memory=False)) | before
    return report_of("", facts, outcome, applied=applied, **picture)
