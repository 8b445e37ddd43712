"""Opens a named target: reads its files, builds its model without weights, or calls the user's factory."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError, TargetError
from kbitlint.extras import require_model_extra
from kbitlint.files import manifest
from kbitlint.files.checkpoint import base_of_adapter, read_checkpoint
from kbitlint.result import Skip
from kbitlint.runtime import import_state
from kbitlint.runtime.confinement import confined
from kbitlint.target import FACTORIES, SOURCES, Kind, Target, parse
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from kbitlint.audit.options import Options
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.rule import Rule


@dataclass(frozen=True, slots=True)
class OpenTarget:
    """A named target with everything its rules look at."""

    target: Target
    files: CheckpointFacts | None = None
    live: Any = None
    """The model, or the Trainer that a factory returned."""
    notes: tuple[str, ...] = ()
    skips: tuple[Skip, ...] = ()
    asks: str = ""
    """The config that the model was built from, where it is not trusted; empty for models of the user's own code."""

    def confined(self) -> AbstractContextManager[None]:
        """Confine what runs the model, where a config made it."""
        return confined(self.asks) if self.asks else nullcontext()


def open_target(target: Target, options: Options, *, model: bool = True) -> OpenTarget:
    """Open a named target, without weights where it is not a factory; ``model``: whether a model is wanted at all."""
    if target.kind in SOURCES:
        return OpenTarget(target)
    prepared = None if target.kind in (Kind.HUB, *FACTORIES) else manifest.read(target.folder)
    if target.kind is Kind.FILE:
        files = read_checkpoint(target.folder, Path(target.place))
        skips = () if files else (Skip("", Surface.FILES, "the file configures neither a model nor an adapter"),)
        return OpenTarget(target, files, skips=skips)
    files = _files(target)
    unread = tuple(Skip("", Surface.FILES, f"{item.file} {item.problem}") for item in files.unread) if files else ()
    if not model:
        return OpenTarget(target, files, skips=unread)
    require_model_extra(f"auditing {target.text}")
    from kbitlint.model.build.checkpoint_config import Source
    from kbitlint.model.build.factory import call_factory
    from kbitlint.model.build.meta import attach_adapter, build
    from kbitlint.model.isolation import quiet

    if target.kind in FACTORIES:
        made = call_factory(lambda: import_state.call(target), target.text, meta=options.meta)
        return OpenTarget(target, None, made, ("built on meta",) if options.meta else ())

    base, trust = target.place, options.trust_remote_code
    notes: tuple[str, ...] = ()
    if target.kind is Kind.ADAPTER:
        base = base_of_adapter(target.folder)
        notes = (f"the adapter's base is {base}", "attached as with is_trainable=True")
    source = Source(base, target.revision, trust)
    with quiet():
        stored = prepared.quantize if prepared else None
        said_by = "--quantize" if options.quantize else manifest.NAME
        built = build(source, options.quantize or stored, said_by)
        live = built.model
        if target.kind is Kind.ADAPTER:
            attached = attach_adapter(live, target.place, trusted=trust)
            live, notes = attached.model, (*notes, *attached.notes)
    if prepared is not None:
        apply_stored(live, prepared, target.folder / manifest.NAME)
        notes += (f"{manifest.NAME} applied: {len(prepared.edits)} edits",)
    return OpenTarget(target, files, live, ("built on meta", *built.notes, *notes), unread, "" if trust else source.asks)


def _files(target: Target) -> CheckpointFacts | None:
    if target.kind is Kind.HUB:
        require_model_extra(f"auditing {target.text}")
        from kbitlint.files.hub import read_hub

        return read_hub(target.place, target.revision)
    return read_checkpoint(target.folder) if Surface.FILES in target.surfaces else None


def apply_stored(model: Any, prepared: manifest.Manifest, file: Path, *, undoable: bool = False) -> int:
    """Apply what a fix wrote; gives the number of edits. Raises TargetError where it does not fit the model.

    Args:
        model: The model; where it is to be undone, a failure leaves it as it was, else it is not used any more.
        prepared: The content of the file.
        file: Where it comes from, for the message.
        undoable: Whether ``undo`` is to take it back.
    """
    from kbitlint.model.edits.apply import apply
    from kbitlint.model.edits.journal import Journal, journaled, keep
    from kbitlint.model.edits.optimizers import Carrier

    try:
        with journaled(Journal(forgets=not undoable)) as journal:
            apply(model, prepared.edits, journal, Carrier(journal, model) if undoable else None)
    except KbitlintError as error:
        raise TargetError(file, f"does not fit this model: {error}") from error
    if undoable:
        keep(model, journal)
    return len(prepared.edits)


def has_weights(target: Target) -> bool:
    """Whether the folder of a checkpoint, or of an adapter's base, holds safetensors weights.

    Raises TargetError where it holds pickles only, which are never loaded.
    """
    from kbitlint.model.build.weights import base_folder, pickles_in, safetensors_in

    folder = base_folder(target)
    if folder is None:
        return False
    if not safetensors_in(folder) and pickles_in(folder):
        raise TargetError(
            target.text, f"{folder} holds pickled weights only, which are never loaded; convert them to safetensors"
        )
    return safetensors_in(folder)


def load_target(target: Target, options: Options, device: str) -> OpenTarget:
    """Open a folder with its real weights on a device, prepared as its ``kbitlint.json`` says."""
    require_model_extra("--fix")
    from kbitlint.model.build.checkpoint_config import Source
    from kbitlint.model.build.weights import base_folder, load
    from kbitlint.model.isolation import quiet

    with quiet():
        prepared = manifest.read(target.folder)
        quantize = options.quantize or (prepared.quantize if prepared else None)
        model = load(target, device, quantize, trust_remote_code=options.trust_remote_code)
    if prepared is not None:
        apply_stored(model, prepared, target.folder / manifest.NAME)
    asks = "" if options.trust_remote_code else Source(str(base_folder(target))).asks
    return OpenTarget(target, read_checkpoint(target.folder), model, (f"loaded on {device}",), asks=asks)


def opened(target: Any, rules: tuple[Rule, ...], options: Options) -> OpenTarget:
    """A named target with what the rules look at."""
    wants_model = any({Surface.MODEL, Surface.TRACE, Surface.RANKS} & set(rule.checks()) for rule in rules)
    return open_target(parse(str(target)), options, model=wants_model)
