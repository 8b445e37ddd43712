"""Opens a named target: reads its files, builds its model without weights, or calls the user's factory."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint import manifest
from kbitlint.confinement import confined
from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError, TargetError, did_you_mean, one_line
from kbitlint.extras import require_model_extra
from kbitlint.files.checkpoint import CheckpointFacts, base_of_adapter, read_checkpoint
from kbitlint.norm_styles import Norms
from kbitlint.target import QUANTIZATIONS, SOURCES, Kind, Target
from kbitlint.violation import Skip, Surface

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

FACTORIES = (Kind.FACTORY_FILE, Kind.FACTORY_MODULE)


@dataclass(frozen=True, slots=True)
class Options:
    """How targets are opened and which rules run; the same for ``check`` and ``fix``."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    rule_options: Mapping[str, Mapping[str, bool | float | str]] = field(default_factory=dict)
    """code or slug of a rule -> option -> value."""
    quantize: str | None = None
    meta: bool = False
    trust_remote_code: bool = False
    trace: bool = True
    """Whether a training step without weights may be run."""
    plan: bool = False
    """Also plan the fixes."""
    outline: bool = False
    """Also collect the tree of modules."""
    memory: bool = False
    """Also measure what a training step takes in memory, before and after the fix."""
    context: TrainingContext = field(default_factory=TrainingContext)
    norms: Norms = Norms.TRANSPARENT
    """What a fix does about norms."""
    output: Path | None = None
    """Where the preparation of a checkpoint is written; None for kbitlint.json beside its config.json."""
    probe_batch: int = 2
    """Sequences in the batch of the step that proves a fix."""
    probe_seq: int = 16
    """Tokens of each."""

    def __post_init__(self) -> None:
        if self.quantize is not None and self.quantize not in QUANTIZATIONS:
            raise KbitlintError(f"quantize: {self.quantize!r} is none of {', '.join(QUANTIZATIONS)}")
        for name, least in (("probe_batch", 1), ("probe_seq", 2)):
            if getattr(self, name) < least:
                raise KbitlintError(f"{name}: {getattr(self, name)} is less than {least}")


@dataclass(frozen=True, slots=True)
class Opened:
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


def open_target(target: Target, options: Options, *, model: bool = True) -> Opened:
    """Open a named target, without weights where it is not a factory; ``model``: whether a model is wanted at all."""
    if target.kind in SOURCES:
        return Opened(target)
    prepared = None if target.kind in (Kind.HUB, *FACTORIES) else manifest.read(target.folder)
    if target.kind is Kind.FILE:
        files = read_checkpoint(target.folder, Path(target.place))
        skips = () if files else (Skip("", Surface.FILES, "the file configures neither a model nor an adapter"),)
        return Opened(target, files, skips=skips)
    files = _files(target)
    unread = tuple(Skip("", Surface.FILES, f"{item.file} {item.problem}") for item in files.unread) if files else ()
    if not model:
        return Opened(target, files, skips=unread)
    require_model_extra(f"auditing {target.text}")
    from kbitlint.model.build import attach_adapter, build
    from kbitlint.model.factory import call_factory
    from kbitlint.model.source import Source

    if target.kind in FACTORIES:
        made = call_factory(lambda: factory_of(target), target.text, meta=options.meta)
        return Opened(target, None, made, ("built on meta",) if options.meta else ())

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
    return Opened(target, files, live, ("built on meta", *built.notes, *notes), unread, "" if trust else source.asks)


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
    from kbitlint.model.edits import apply
    from kbitlint.model.journal import Journal, journaled, keep

    try:
        with journaled(Journal(forgets=not undoable)) as journal:
            apply(model, prepared.edits, journal)
    except KbitlintError as error:
        raise TargetError(file, f"does not fit this model: {error}") from error
    if undoable:
        keep(model, journal)
    return len(prepared.edits)


def factory_of(target: Target) -> Callable[[], Any]:
    """The callable that a factory target names; importing its module runs the user's code."""
    try:
        with _importable(target):
            module = _module_of_file(target) if target.kind is Kind.FACTORY_FILE else importlib.import_module(target.place)
    except KbitlintError:
        raise
    except SystemExit as error:
        raise TargetError(target.text, f"importing it left the program with exit status {error.code}") from error
    except Exception as error:
        raise TargetError(target.text, f"importing it raised {one_line(error)}") from error
    found: Any = module
    for name in target.attribute.split("."):
        found = getattr(found, name, None)
    if found is not None and not callable(found):
        raise TargetError(target.text, f"{target.attribute} is a {type(found).__name__}, not a function")
    if found is None:
        known = sorted(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
        raise TargetError(target.text, f"has no function {target.attribute!r}{did_you_mean(target.attribute, known)}")
    return found  # type: ignore[no-any-return]  # callable, as checked


def _module_of_file(target: Target) -> ModuleType:
    path = Path(target.place).resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TargetError(target.text, "cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(target: Target) -> Iterator[None]:
    """Let the user's code import what stands beside it: the file's folder, or the working folder."""
    place = str(Path(target.place).resolve().parent) if target.kind is Kind.FACTORY_FILE else str(Path.cwd())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the logs, progress bars and deprecation warnings of other libraries out of our own output."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def has_weights(target: Target) -> bool:
    """Whether the folder of a checkpoint, or of an adapter's base, holds safetensors weights.

    Raises TargetError where it holds pickles only, which are never loaded.
    """
    from kbitlint.model.loading import base_folder, pickles_in, safetensors_in

    folder = base_folder(target)
    if folder is None:
        return False
    if not safetensors_in(folder) and pickles_in(folder):
        raise TargetError(
            target.text, f"{folder} holds pickled weights only, which are never loaded; convert them to safetensors"
        )
    return safetensors_in(folder)


def load_target(target: Target, options: Options, device: str) -> Opened:
    """Open a folder with its real weights on a device, prepared as its ``kbitlint.json`` says."""
    require_model_extra("--fix")
    from kbitlint.model.loading import base_folder, load
    from kbitlint.model.source import Source

    with quiet():
        prepared = manifest.read(target.folder)
        quantize = options.quantize or (prepared.quantize if prepared else None)
        model = load(target, device, quantize, trust_remote_code=options.trust_remote_code)
    if prepared is not None:
        apply_stored(model, prepared, target.folder / manifest.NAME)
    asks = "" if options.trust_remote_code else Source(str(base_folder(target))).asks
    return Opened(target, read_checkpoint(target.folder), model, (f"loaded on {device}",), asks=asks)
