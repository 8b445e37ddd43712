"""Options that a launch beside a script passes, and that the script's parser does not have."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.object_faults import ObjectFault
from kbitlint.source.text.bindings import Bindings, keyword, last
from kbitlint.upstream.signatures.lookup import names_of, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.source.launches import Launch

#: classes of parsers -> the method that refuses options which no field has
_PARSERS = {
    "HfArgumentParser": "parse_args_into_dataclasses",
    "TrlParser": "parse_args_and_config",
    "ArgumentParser": "parse_args",
}
#: arguments of ``argparse.ArgumentParser`` that change no option
_PLAIN = frozenset(("description", "prog", "usage", "epilog", "formatter_class"))
#: methods through which a parser gets options, or loses the refusal
_OPENS = ("add_subparsers", "parse_known_args", "add_argparse_args", "from_argparse_args", "parse_known_intermixed_args")
#: options that a parser or launcher adds itself: ``-h``, ``--config`` of TRL's
_OWN = ("h", "help", "config", "local_rank")
_DEEPEST = 12


def refused_options(module: ast.Module, text: str, launch: Launch, versions: Mapping[str, str]) -> Iterator[ObjectFault]:
    """Yield the options of each file beside a script that the script's one parser refuses.

    Args:
        module: The syntax tree of the script.
        text: Its text.
        launch: How the files beside it launch it.
        versions: The versions of the libraries.
    """
    if not launch.named or any(one in text for one in _OPENS):
        return
    names = Bindings(module)
    parsers = [call for call in names.calls if last(call) in _PARSERS]
    parser = parsers[0] if len(parsers) == 1 else None
    known = _known(names, parser, versions) if parser is not None and _refuses(names, parser, module) else None
    if parser is None or known is None:
        return
    taken, classes = known
    lacking = {name for name in launch.named if not any(one.startswith(name) for one in taken) and not _negates(name, taken)}
    if not lacking - set(_OWN):
        return
    written = launch.written()
    found: dict[str, list[tuple[int, str]]] = {}
    for name in sorted(lacking - set(_OWN)):
        if name in written:
            found.setdefault(written[name][0], []).append((written[name][1], name))
    for file, options in found.items():
        yield _fault(last(parser), file, sorted(options), classes, versions)


def _fault(
    parser: str, file: str, options: list[tuple[int, str]], classes: list[str], versions: Mapping[str, str]
) -> ObjectFault:
    """Return the fault of a file whose options a parser refuses."""
    reasons = {name: [one for cls in classes if (one := refusal(cls, name, versions)) is not None] for _, name in options}
    went = {name: next((one for one in found if one.until or one.since), None) for name, found in reasons.items()}
    sure = any(one is None or one.is_certain(versions) for one in went.values())
    meant = next((one.replacement for one in went.values() if one is not None and one.replacement), "")
    named = ", ".join(f"--{name}{one.when if one is not None else ''}" for name, one in went.items())
    version = "" if sure else next(one.library for one in went.values() if one is not None)
    return ObjectFault("option", parser, named, options[0][0], 0, meant, version, options[0][1], file)


def _negates(name: str, taken: set[str]) -> bool:
    """Return whether an option switches off a field that is on by default: ``--no_packing``."""
    return name.startswith("no_") and name.removeprefix("no_") in taken


def _refuses(names: Bindings, parser: ast.Call, module: ast.Module) -> bool:
    """Return whether a parser certainly reads the command line itself, and is given to no other function."""
    method = _PARSERS[last(parser)]
    parses = [call for call in names.calls if isinstance(call.func, ast.Attribute) and last(call) == method]
    if len(parses) != 1 or parses[0].args or parses[0].keywords:
        return False
    held = {ast.unparse(one.targets[0]) for one in ast.walk(module) if isinstance(one, ast.Assign) and one.value is parser}
    given = (ast.unparse(one) for call in names.calls for one in (*call.args, *(word.value for word in call.keywords)))
    stores = [one for one in ast.walk(module) if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store)]
    changes = any(one.attr == "argv" for one in stores) or any(".argv." in ast.unparse(call.func) for call in names.calls)
    return not held & set(given) and not changes


def _known(names: Bindings, parser: ast.Call, versions: Mapping[str, str]) -> tuple[set[str], list[str]] | None:
    """Return the options of a parser and the classes of libraries that it reads; None if they are not all known."""
    added = _added(names)
    if added is None:
        return None
    if last(parser) == "ArgumentParser":
        plain = not parser.args and all(one.arg in _PLAIN for one in parser.keywords)
        return (added, []) if plain and added else None
    given = parser.args[0] if len(parser.args) == 1 else keyword(parser, "dataclass_types")
    listed, _ = names.value(given)
    listed = listed if isinstance(listed, (ast.Tuple, ast.List)) else given
    classes = listed.elts if isinstance(listed, (ast.Tuple, ast.List)) else [listed] if listed is not None else []
    taken, libraries = set(added), list[str]()
    for one in classes:
        fields = _fields(names, one, versions)
        if fields is None:
            return None
        taken |= fields[0]
        libraries += fields[1]
    return (taken, libraries) if classes else None


def _added(names: Bindings) -> set[str] | None:
    """Return the options that a script adds to its parser by text; None if one of them is no text."""
    found: set[str] = set()
    for call in names.calls:
        if last(call) != "add_argument":
            continue
        texts = [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        if len(texts) != len(call.args) or not texts:
            return None
        found |= {one.lstrip("-").replace("-", "_") for one in texts}
        found |= {f"no_{one}" for one in found if "BooleanOptionalAction" in ast.unparse(call)}
    return found


def _fields(names: Bindings, node: ast.expr, versions: Mapping[str, str]) -> tuple[set[str], list[str]] | None:
    """Return the fields of a dataclass and the classes of libraries that it extends; None if they are not all known."""
    found, libraries = set[str](), list[str]()
    todo = [node]
    for one in todo:  # grows
        made, _ = names.value(one)
        if len(todo) > _DEEPEST:
            return None
        if isinstance(made, ast.ClassDef):
            found |= {
                item.target.id for item in made.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
            todo += made.bases
            continue
        library, _, name = names.full(one).partition(".")
        callee = f"{library}.{name.rpartition('.')[2]}"
        taken = set(names_of(callee, versions)) if library in ("transformers", "trl") else set()
        if not taken:
            return None
        found |= taken
        libraries.append(callee)
    return found, libraries
