"""Models that a stored fix prepares: the edits of a ``kbitlint.json``, applied when a folder is loaded, or to a live model.

Imports of torch and ``kbitlint.model`` are inside functions, as in ``kbitlint.api``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kbitlint.audit.open import apply_stored
from kbitlint.audit.run import model_of
from kbitlint.audit.turn import turn
from kbitlint.errors import TargetError
from kbitlint.extras import require_model_extra
from kbitlint.files import manifest
from kbitlint.target import held, parse


def load_prepared(folder: str | Path, *, device: str | None = None, **kwargs: Any) -> Any:
    """Load the quantized model of a folder that ``kbitlint --fix`` prepared, and apply the edits of its ``kbitlint.json``.

    Args:
        folder: A checkpoint or adapter folder with a ``kbitlint.json``.
        device: The device to load it on; None for ``cuda`` if there is one, else ``cpu``.
        **kwargs: Arguments of ``from_pretrained``: ``quantization_config``, ``dtype``, ...

    Raises:
        TargetError: The folder was not prepared, or its edits do not fit the model.
    """
    target = parse(str(folder))
    prepared = manifest.read(target.folder)
    if prepared is None:
        raise TargetError(folder, f"has no {manifest.NAME}; `kbitlint --fix {folder}` writes it")
    require_model_extra("loading a model")
    from kbitlint.model.build.weights import load

    with turn(target):
        model = load(target, device or _any_device(), prepared.quantize, trust_remote_code=False, arguments=kwargs)
        apply_stored(model, prepared, target.folder / manifest.NAME)
    return model


def prepare(model: Any, file: str | Path) -> int:
    """Apply the edits of a ``kbitlint.json`` to a model that was not loaded with ``load_prepared``.

    Args:
        model: The quantized model, with or without its adapters.
        file: A ``kbitlint.json``, or the folder of one.

    Returns:
        How many edits were made; ``undo`` undoes them.

    Raises:
        TargetError: There is no such file, kbitlint did not write it, or its edits do not fit the model. The model is
            left as it was.
    """
    place = Path(file) / manifest.NAME if Path(file).is_dir() else Path(file)
    prepared = manifest.read_file(place)
    if prepared is None:
        raise TargetError(place, "no such file; `kbitlint --fix` writes it")
    with turn(held(model)):
        return apply_stored(model_of(model), prepared, place, undoable=True)


def _any_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
