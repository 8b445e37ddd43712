"""The input files of a run: a report must not overwrite one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.errors import KbitlintError, TargetError
from kbitlint.target import CHECKPOINT_FILES, Kind, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CHECKPOINT = (*CHECKPOINT_FILES, "*.safetensors", "*.safetensors.index.json")


def must_be_no_input(output: Path | None, targets: Iterable[str], others: Iterable[str | Path | None]) -> None:
    """Raise if the report would overwrite a file that the run reads.

    Args:
        output: The file of the report; None if it is printed.
        targets: The target strings.
        others: The baseline, the launcher's file, pyproject.toml and other files; None for those not given.

    Raises:
        KbitlintError: The output is one of them, under its own name, another one or through a link.
    """
    if output is None:
        return
    files = (Path(other) for other in others if other is not None)
    read = (file for target in targets for file in _read_for(target, output))
    for file in (*files, *read):
        if _same(file, output):
            raise KbitlintError(f"--output-file {output}: is {file}, which this run reads or writes; name another file")


def _read_for(text: str, output: Path) -> Iterator[Path]:
    """Yield the files of one target that the output may be."""
    try:
        target = parse(text)
    except TargetError:
        return  # the audit reports why
    if target.kind is Kind.TREE:
        yield from _of_tree(Path(target.place), output)
    elif target.kind in (Kind.CHECKPOINT, Kind.ADAPTER):
        for folder in (target.folder, *_base(target.folder, target.kind)):
            for pattern in _CHECKPOINT:
                yield from folder.glob(pattern)
    elif target.kind is Kind.FACTORY_MODULE:
        yield Path(*target.place.split(".")).with_suffix(".py")
    elif target.kind is not Kind.HUB:
        yield Path(target.place)


def _base(folder: Path, kind: Kind) -> Iterator[Path]:
    from kbitlint.files.checkpoint import base_of_adapter  # only --output-file needs it

    if kind is Kind.ADAPTER:
        try:
            yield Path(base_of_adapter(folder))
        except TargetError:
            return


def _of_tree(root: Path, output: Path) -> Iterator[Path]:
    """Yield the file of a folder that is the output, if it is a script or configures a training.

    The report of an earlier run is neither.
    """
    from kbitlint.source.folders import walk  # as above

    return (file for file in walk(root) if _same(file, output) and _is_input(file))


def _is_input(file: Path) -> bool:
    from kbitlint.source import documents  # as above

    if file.suffix not in documents.CONFIGS or file.name in CHECKPOINT_FILES:
        return True
    try:
        return documents.read(file) is not None
    except KbitlintError:
        return False


def _same(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file, or would where neither is there yet."""
    try:
        if not (one.exists() or other.exists()):
            return one.resolve() == other.resolve()
        return one.samefile(other)
    except (OSError, ValueError, RuntimeError):  # only one exists, or a name is invalid, or links form a circle
        return False
