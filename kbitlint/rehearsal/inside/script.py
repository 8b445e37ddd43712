"""The script itself: its code, run as ``__main__`` with the arguments, path and folder that a real run has."""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from kbitlint.errors import TargetError
from kbitlint.runtime import content

if TYPE_CHECKING:
    from types import CodeType

    from kbitlint.rehearsal.inside.folders import Mirror
    from kbitlint.rehearsal.messages import Request


def run(request: Request, mirror: Mirror, cells: list[tuple[int, int]]) -> None:
    """Run the script. Everything that it raises passes through.

    Args:
        request: What is rehearsed.
        mirror: The mirror in which the script lies.
        cells: Receives (first line in the code, number) of each cell of a notebook.
    """
    command = request.command
    place = _place(request, mirror)
    if request.text is not None:
        place = mirror.for_writing(place, keep=False)
        Path(place).write_bytes(request.text)
    code = _code(command.script, place, cells)
    main = ModuleType("__main__")
    main.__file__ = place
    main.__builtins__ = __builtins__  # type: ignore[attr-defined]  # as in every __main__
    if command.is_module:
        main.__package__ = command.script.rpartition(".")[0]
    sys.modules["__main__"] = main
    sys.argv = [command.script if not command.is_module else place, *command.argv]
    sys.path.insert(0, os.getcwd() if command.is_module else os.path.dirname(place))  # noqa: PTH109, PTH120  # as Python does
    exec(code, main.__dict__)  # noqa: S102  # the user asked for it


def _place(request: Request, mirror: Mirror) -> str:
    """Return the path of the script in the mirror."""
    command = request.command
    if not command.is_module:
        file = Path(request.working_folder, command.script)
        mirror.open_up(file.parent)
        return mirror.inside(str(file))
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # as `python -m` does
    try:
        found = _file_of(command.script)
    finally:
        del sys.path[0]
    if found is None:
        raise TargetError(command.script, "there is no such module")
    return found


def _file_of(name: str) -> str | None:
    """Return the file of a module, or of its ``__main__`` if it is a package. No package is imported to find it."""
    top, *parts = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not parts and spec.submodule_search_locations is None:
        return spec.origin
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *parts)
        for file in (place.with_suffix(".py"), place / "__main__.py") if parts else (place / "__main__.py",):
            if file.is_file():
                return str(file)
    return None


def _code(name: str, place: str, cells: list[tuple[int, int]]) -> CodeType:
    try:
        data = content.read(Path(place))
    except OSError as error:
        raise TargetError(name, f"cannot be read: {error.strerror or error}") from error
    if not place.endswith(".ipynb"):
        return compile(data, place, "exec", dont_inherit=True)
    from kbitlint.source import notebooks  # only a notebook needs it

    try:
        notebook = notebooks.read(data.decode("utf-8"))
    except (notebooks.NotebookError, UnicodeDecodeError) as error:
        raise TargetError(name, f"is no notebook that can be read: {error}") from error
    lines = itertools.accumulate((cell.source.count("\n") + 1 for cell in notebook.cells), initial=1)
    cells += [(line, cell.number) for line, cell in zip(lines, notebook.cells, strict=False)]
    return compile(notebook.python, place, "exec", dont_inherit=True)
