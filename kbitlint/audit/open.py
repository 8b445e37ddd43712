"""Opens a target: reads its files, builds its model without weights, or calls the user's factory.

Imports of ``kbitlint.model`` and ``huggingface_hub`` are inside functions: they load torch or an optional dependency, and
audits of scripts and files need neither.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.audit.options import is_left_out
from kbitlint.audit.turn import plain_errors
from kbitlint.errors import KbitlintError, TargetError, UnreachableError
from kbitlint.extras import require_model_extra
from kbitlint.files import manifest
from kbitlint.lazy_dataclass import dataclass
from kbitlint.result import Skip
from kbitlint.runtime import import_state
from kbitlint.runtime.confinement import confined
from kbitlint.target import FACTORIES, SOURCES, Kind, Target, held, parse
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from kbitlint.audit.options import Options
    from kbitlint.facts.checkpoint import CheckpointFacts


@dataclass(frozen=True, slots=True)
class OpenTarget:
    """A target with everything that rules check."""

    target: Target
    files: CheckpointFacts | None = None
    live: Any = None
    """The model, or the Trainer that holds it; None if the target has no model or no rule needs one."""
    notes: tuple[str, ...] = ()
    skips: tuple[Skip, ...] = ()
    asks: str = ""
    """The config that the model was built from, if it is not trusted; empty for models of the user's own code."""

    def confined(self) -> AbstractContextManager[None]:
        """Confine the code that runs the model if a config decided its class."""
        return confined(self.asks) if self.asks else nullcontext()


def target_of(given: Any) -> Target:
    """Return the target that a string or path names, or the model or Trainer itself as a target.

    Raises:
        TargetError: The string names nothing.
        KbitlintError: It is neither a string, nor a model, nor a Trainer; or reading its attributes raises.
    """
    if isinstance(given, Target):
        return given
    if isinstance(given, (str, Path)):
        return parse(str(given))
    if "torch" not in sys.modules:
        raise KbitlintError(f"a {type(given).__name__} is neither a target string nor a model")
    from torch import nn

    from kbitlint.model.build.factory import is_trainer

    with plain_errors(held(given)):  # the properties of a Trainer are code of others
        known = isinstance(given, nn.Module) or is_trainer(given)
    if not known:
        raise KbitlintError(f"a {type(given).__name__} is neither a target string, nor a model, nor a Trainer")
    return held(given)


def open_target(target: Target, options: Options, *, model: bool = True) -> OpenTarget:
    """Open a target; checkpoints are built without weights.

    Args:
        target: The target. A function is called here, unless the options do not let functions run.
        options: How to open it.
        model: Whether a rule needs the model; if not, a named target is not built.
    """
    if target.kind is Kind.LIVE:
        return OpenTarget(target, live=target.live)
    if target.kind in SOURCES or is_left_out(target, options):
        return OpenTarget(target)
    prepared = None if target.kind in (Kind.HUB, *FACTORIES) else manifest.read(target.folder)
    if target.kind is Kind.FILE:
        from kbitlint.files.checkpoint import read_checkpoint  # an audit of a script reads none

        files = read_checkpoint(target.folder, Path(target.place))
        skips = () if files else (Skip("", Surface.FILES, "the file configures neither a model nor an adapter"),)
        return OpenTarget(target, files, skips=skips)
    files = _files(target)
    unread = tuple(Skip("", Surface.FILES, f"{item.file} {item.problem}") for item in files.unread) if files else ()
    if not model:
        return OpenTarget(target, files, skips=unread)
    require_model_extra(f"auditing {target.text}")
    if target.kind in FACTORIES:
        return _call(target, options)
    try:
        opened = _build(target, options, prepared)
        return dataclasses.replace(opened, files=files, skips=(*unread, *opened.skips))
    except UnreachableError as error:
        if target.kind is not Kind.ADAPTER:
            raise
        return OpenTarget(
            target, files, skips=(*unread, Skip("", Surface.MODEL, f"the base of the adapter: {error}", unreached=True))
        )


def _call(target: Target, options: Options) -> OpenTarget:
    """Call the user's function for its model."""
    from kbitlint.model.build.factory import call_factory

    made = call_factory(lambda: import_state.call(target), target.text, meta=options.meta)
    return OpenTarget(target, live=made, notes=("built on meta",) if options.meta else ())


def _build(target: Target, options: Options, prepared: manifest.Manifest | None) -> OpenTarget:
    """Build the model of a checkpoint without weights, with its adapter, as its ``kbitlint.json`` prepares it."""
    from kbitlint.model.build.checkpoint_config import Source
    from kbitlint.model.build.meta import attach_adapter, build
    from kbitlint.model.isolation import quiet

    base, trust = target.place, options.trust_remote_code
    notes: tuple[str, ...] = ()
    if target.kind is Kind.ADAPTER:
        from kbitlint.files.checkpoint import base_of_adapter  # only adapters have one

        base = base_of_adapter(target.folder)
        notes = (f"the adapter's base is {base}", "attached as with is_trainable=True")
    source = Source(base, target.revision, trust)
    with quiet():
        stored = prepared.quantize if prepared else None
        named_by = "--quantize" if options.quantize else manifest.NAME
        built = build(source, options.quantize or stored, named_by)
        live = built.model
        if target.kind is Kind.ADAPTER:
            attached = attach_adapter(live, target.place, trusted=trust)
            live, notes = attached.model, (*notes, *attached.notes)
    if prepared is not None:
        apply_stored(live, prepared, target.folder / manifest.NAME)
        notes += (f"{manifest.NAME} applied: {len(prepared.edits)} edits",)
    skips = (Skip("", Surface.MODEL, built.assumed, unreached=True),) if built.assumed else ()
    notes, asks = ("built on meta", *built.notes, *notes), "" if trust else source.asks
    return OpenTarget(target, live=live, notes=notes, skips=skips, asks=asks)


def _files(target: Target) -> CheckpointFacts | None:
    if target.kind is Kind.HUB:
        require_model_extra(f"auditing {target.text}")
        from kbitlint.files.hub import read_hub

        return read_hub(target.place, target.revision)
    from kbitlint.files.checkpoint import read_checkpoint  # an audit of a script reads none

    return read_checkpoint(target.folder) if Surface.FILES in target.surfaces else None


def apply_stored(model: Any, prepared: manifest.Manifest, file: Path, *, undoable: bool = False) -> int:
    """Apply the edits of a ``kbitlint.json`` and return how many there are.

    Args:
        model: The model. If ``undoable``, a failure leaves it as it was; if not, it must not be used after a failure.
        prepared: The content of the file.
        file: The file, for the message.
        undoable: Whether ``undo`` can take the edits back.

    Raises:
        TargetError: The edits do not fit the model.
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
    """Return whether the folder of a checkpoint, or of an adapter's base, holds safetensors weights.

    Raises:
        TargetError: It holds pickles only, which are never loaded.
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
    """Open a folder with its weights on a device, and apply its ``kbitlint.json``."""
    require_model_extra("--fix")
    from kbitlint.files.checkpoint import read_checkpoint
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
