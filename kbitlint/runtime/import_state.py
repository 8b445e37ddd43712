"""Import and call of a target's function, with an import state that ends with its audit.

Scripts in different folders have modules of equal names. In a run of several functions, each gets the modules that
it would get alone. Modules in its folder are importable only while it is imported and called. They replace modules
of equal names, and are removed from ``sys.modules`` after the audit.

Extension modules and their packages stay imported, because many cannot be loaded twice in one process.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from contextlib import contextmanager
from dataclasses import field
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError, TargetError, did_you_mean, one_line
from kbitlint.lazy_dataclass import dataclass
from kbitlint.runtime import content
from kbitlint.target import FACTORIES, Kind, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

#: module name of a function's file during the audit; the file's own name may be that of another module
OWN_NAME = "kbitlint_function_"
#: packages of this program, which are never hidden
_OURS = ("kbitlint", "kbitlint_rules")


@dataclass(slots=True)
class _State:
    """The import state before a function was imported."""

    modules: dict[str, ModuleType]
    path: list[str]
    finders: list[Any]
    caches: set[str]
    hidden: dict[str, ModuleType] = field(default_factory=dict)
    """Modules that were replaced by the function's own modules of equal names."""
    folders: set[str] = field(default_factory=set)
    """Entries that ``sys.path`` had only while the function was imported and called."""


#: states of the functions under audit; there are two if a function itself starts an audit of another one
_states: list[_State] = []
#: names that were imported before the first function; a function alone would not meet later ones
_first: set[str] = set()


@contextmanager
def import_state(target: Target) -> Iterator[None]:
    """Keep a function's modules until its audit ends, then restore the import state.

    Inside the context its classes can be pickled and inspected like those of any module.
    """
    if target.kind not in FACTORIES:
        yield
        return
    state = _State(dict(sys.modules), list(sys.path), list(sys.meta_path), set(sys.path_importer_cache))
    _states.append(state)
    try:
        yield
    finally:
        _states.remove(state)
        _restore(state)


def call(target: Target) -> Any:
    """Import the function of a target, call it with its folder on ``sys.path``, and return the result.

    Raises:
        TargetError: If it cannot be imported, or there is no such function.
    """
    if not _first:
        _first.update(sys.modules)
    folder = _folder_of(target)
    hidden = _hide(folder, target)
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        return function_of(target)()
    finally:
        if _states:
            _states[-1].folders |= {folder, *sys.path} - set(before)
            _states[-1].hidden |= {name: module for name, module in hidden.items() if name.partition(".")[0] in sys.modules}
        sys.path[:] = before
        for name, module in hidden.items():
            if not _states or name not in _states[-1].hidden:
                sys.modules[name] = module


def function_of(target: Target) -> Callable[[], Any]:
    """Return the callable of a target. Importing its module runs the user's code.

    Raises:
        TargetError: If it cannot be imported, or there is no such function.
    """
    if target.kind is Kind.FACTORY_FILE:
        _must_be_bound(target)
    try:
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
    return found  # type: ignore[no-any-return]  # checked to be callable


def _must_be_bound(target: Target) -> None:
    """Raise an error, before any code of the file runs, if the file has no such function.

    A file that binds names in ways which its text does not show is not judged, and neither is one that is no Python.
    """
    import ast  # only a target with a function needs it

    try:
        data = content.read(Path(target.place))
    except OSError as error:
        raise TargetError(target.text, f"cannot be read: {error.strerror or error}") from error
    try:
        nodes = list(ast.walk(ast.parse(data)))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return  # the import reports it
    functions = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    names = {node.id for node in nodes if isinstance(node, ast.Name)} | functions
    names |= {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    wanted = target.attribute.partition(".")[0]
    if wanted not in names and not names & {"*", "globals", "exec", "vars", "setattr", "__getattr__"}:
        known = sorted(name for name in functions if not name.startswith("_"))
        raise TargetError(target.text, f"has no function {wanted!r}{did_you_mean(wanted, known)}")


def _module_of_file(target: Target) -> ModuleType:
    path = Path(target.place).resolve()
    name = OWN_NAME + path.stem
    while name in sys.modules:  # the function of one target may audit another
        name += "_"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(target.text, "cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _folder_of(target: Target) -> str:
    """Return the folder that is first on ``sys.path`` while the function runs: that of its file, or the working folder."""
    return str(Path(target.place).resolve().parent) if target.kind is Kind.FACTORY_FILE else str(Path.cwd())


def _hide(folder: str, target: Target) -> dict[str, ModuleType]:
    """Remove modules from ``sys.modules`` that have the name of a module in this folder, and return them.

    Modules that Python or a library needs stay.

    Raises:
        TargetError: If an extension module of another folder has such a name, because it cannot be loaded twice.
    """
    hidden: dict[str, ModuleType] = {}
    for name in sorted(_modules_in(folder) - set(_OURS) - sys.stdlib_module_names):
        module = sys.modules.get(name)
        if module is None or folder in _homes(module) or (name in _first and _is_installed(module)):
            continue
        family = _family(name)
        if any(map(_is_extension, family.values())):
            if name in _first:  # a library of this process
                continue
            raise TargetError(
                target.text,
                f"stands beside a module {name!r}, and the extension module of that name in {_homes(module)[0]} is loaded "
                "already: check it alone, or each in its own process with --jobs",
            )
        hidden |= family
    for name in hidden:
        del sys.modules[name]
    return hidden


def _modules_in(folder: str) -> set[str]:
    """Return the names under which modules of a folder can be imported."""
    found = set()
    suffixes = (".py", *EXTENSION_SUFFIXES)
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return set()
    for entry in entries:
        suffix = next((suffix for suffix in suffixes if entry.name.endswith(suffix)), None)
        if suffix is not None:
            found.add(entry.name.removesuffix(suffix))
        elif any(os.path.exists(os.path.join(entry.path, f"__init__{suffix}")) for suffix in suffixes):  # noqa: PTH110, PTH118
            found.add(entry.name)
    return found


def _restore(state: _State) -> None:
    tops = {name.partition(".")[0] for name in sys.modules.keys() - state.modules.keys()} - set(_OURS)
    gone = [name for name in tops if name not in state.modules and _came_with(name, state.folders)]
    taken = {key for name in (*gone, *state.hidden) for key in _family(name.partition(".")[0])}
    for name in taken:
        sys.modules.pop(name, None)
    for name, module in {**state.modules, **state.hidden}.items():
        if sys.modules.get(name) is not module:
            sys.modules[name] = module
    sys.path[:] = state.path
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder in state.finders or _module_name(finder) not in taken]
    for entry in set(sys.path_importer_cache) - state.caches:
        if any(entry == place or entry.startswith(place + os.sep) for place in state.folders):
            sys.path_importer_cache.pop(entry, None)


def _came_with(name: str, folders: set[str]) -> bool:
    """Return whether a top-level module was imported for a function and can be removed.

    Such a module was found in these folders or created by the function's code. Extension modules cannot be removed.
    """
    module = sys.modules.get(name)
    if module is None:
        return False
    made = getattr(module, "__spec__", None) is None and not getattr(module, "__file__", None)
    ours = made or name.startswith(OWN_NAME) or not folders.isdisjoint(_homes(module))
    return ours and not any(map(_is_extension, _family(name).values()))


def _family(name: str) -> dict[str, ModuleType]:
    """Return a top-level module and its submodules."""
    return {key: module for key, module in sys.modules.items() if key == name or key.startswith(f"{name}.")}


def _homes(module: ModuleType) -> list[str]:
    """Return the folders in which a top-level module was found."""
    path = getattr(module, "__path__", None)
    try:
        places = list(path) if path is not None else [module.__file__]
    except Exception:  # noqa: BLE001  # entries of sys.modules may be any object
        return []
    return [os.path.realpath(os.path.dirname(place)) for place in places if isinstance(place, str)]  # noqa: PTH120


def _is_extension(module: ModuleType) -> bool:
    return isinstance(getattr(getattr(module, "__spec__", None), "loader", None), ExtensionFileLoader)


def _is_installed(module: ModuleType) -> bool:
    parts = {part for home in _homes(module) for part in Path(home).parts}
    return not parts.isdisjoint(("site-packages", "dist-packages"))


def _module_name(finder: Any) -> str:
    return str(getattr(finder, "__module__", None) or type(finder).__module__)
