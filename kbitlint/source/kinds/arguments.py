"""The arguments of calls: keywords that a function does not take, and objects that it cannot use."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.object_faults import ObjectFault
from kbitlint.source.kinds.kind import Kind
from kbitlint.source.kinds.partners import partner_faults
from kbitlint.source.nodes import line_offset
from kbitlint.upstream.objects.lookup import parameters, refused_argument, required
from kbitlint.upstream.objects.takes import refuses, refuses_arguments
from kbitlint.upstream.signatures.lookup import base_of, names_of
from kbitlint.upstream.versions import number

if TYPE_CHECKING:
    from collections.abc import Mapping


ENCODING = "transformers.BatchEncoding"
_LIBRARIES = frozenset(("transformers", "peft", "trl", "datasets", "accelerate"))
#: what a model cannot take for its token ids
_NO_TENSOR = {ENCODING: "a BatchEncoding", "list": "a list", "str": "a text"}
_YES = ast.Constant(value=True)
#: parameters that must be an object
_NEEDED = frozenset(("model", "train_dataset", "peft_config"))


class ArgumentFaults:
    """The faults of arguments, with the names that are in sight.

    Args:
        versions: The versions of the libraries.
        text: The text of the script.
    """

    def __init__(self, versions: Mapping[str, str], text: str) -> None:
        self.versions = versions
        self.text = text
        self.names: dict[str, Kind | None] = {}
        self.outer: dict[str, Kind | None] = {}
        self.faults: list[ObjectFault] = []
        self.guarded = 0
        self.stored: set[str] = set()
        self.ranked = False
        self._pure: dict[int, tuple[str, str]] = {}
        self._unentered: dict[int, str] = {}
        self._lost: dict[int, str] = {}

    def report(  # noqa: PLR0913  # one fact, whose parts are named
        self,
        kind: str,
        owner: str,
        name: str,
        node: ast.expr,
        *,
        at: int = 0,
        meant: str = "",
        version: str = "",
        detail: str = "",
    ) -> None:
        """Note a fault, if no ``try`` around it may expect one."""
        line = at or (node.end_lineno or node.lineno if isinstance(node, ast.Attribute) else node.lineno)
        if not self.guarded:
            self.faults.append(ObjectFault(kind, owner, name, line, line_offset(self.text, line), meant, version, detail))

    def arguments(self, callee: str, node: ast.Call, named: Mapping[str | None, Kind | None]) -> None:
        """Note the keywords that a callee does not take, and the parameters that the call leaves out."""
        known = parameters(callee)
        short = callee.partition(".")[2]
        for name in named:
            lack = refused_argument(callee, name, self.versions) if name else None
            if name and lack is not None and not lack.since:
                version = f"{lack.library} {lack.until}" if lack.until else ""
                self.report("keyword", short, name, node, meant=lack.meant, version=version, detail="a TypeError")
        if not known or None in named or any(isinstance(one, ast.Starred) for one in node.args):
            return
        given = {*known[: len(node.args)], *named}
        lacking = [name for name in required(callee) if name not in given]
        if lacking:
            self.report("required", short, lacking[0], node, detail="a TypeError")

    def objects(self, callee: str, node: ast.Call, places: list[Kind | None], named: Mapping[str | None, Kind | None]) -> None:
        """Note the arguments that are objects of a class which the callee cannot use."""
        if any(isinstance(one, ast.Starred) for one in node.args):
            return
        names = _order(callee)
        given = [*zip(names, places, node.args, strict=False)]
        given += [(one.arg, named[one.arg], one.value) for one in node.keywords if one.arg]
        for name, kind, value in given:
            if kind is None:
                continue
            if kind.name == "None" and kind.source and name in _NEEDED:
                self.report("none", kind.source, ast.unparse(value), value, at=kind.line)
            why = refuses(callee, name, kind.name, kind.source)
            since = ""
            if name == "args" and not why:
                why = refuses_arguments(callee, kind.name, self.versions)
                since = "trl 0.13" if callee.startswith("trl.") and kind.name.startswith("transformers.") else ""
            if why and not (kind.name == "list" and self._takes_lists()):
                self.report("class", callee.partition(".")[2], name, value, detail=why, version=since)
        if callee.startswith("trl.") and callee.endswith("Trainer"):
            for name, value, why in partner_faults(callee, {one: (kind, value) for one, kind, value in given}, self.text):
                self.report("class", callee.partition(".")[2], name, value, detail=why)

    def _takes_lists(self) -> bool:
        """Return whether TRL's trainers take a list of rows: before 1.10, and where unsloth replaces their code."""
        have = number(self.versions.get("trl", ""))
        return "unsloth" in self.text or (bool(have) and have < (1, 10))

    def tensor(self, node: ast.Call, places: list[Kind | None], what: str) -> None:
        """Note a first argument that is no tensor, in a call of a model or of ``generate``."""
        kind = places[0] if places else None
        if kind is not None and kind.name in _NO_TENSOR and not isinstance(node.args[0], ast.Starred):
            self.report(
                "class",
                what,
                ast.unparse(node.args[0]),
                node,
                detail=f"is {_NO_TENSOR[kind.name]}, and token ids must be a tensor",
            )

    def encoding(self, node: ast.Call, named: Mapping[str | None, Kind | None]) -> None:
        """Note an encoding that ``generate`` gets by name as its token ids: it has no ``shape``, an AttributeError."""
        for name in ("input_ids", "inputs"):
            given = named.get(name)
            if given is not None and given.name == ENCODING:
                code = next(ast.unparse(one.value) for one in node.keywords if one.arg == name)
                detail = f"is {_NO_TENSOR[ENCODING]}, and token ids must be a tensor"
                self.report("class", "generate", code, node, detail=detail)

    def chat_encoding(self, node: ast.Call) -> Kind | None:
        """Return the encoding that ``apply_chat_template`` makes of tokens since transformers 5; None if it may be another."""
        given = {one.arg: one.value for one in node.keywords}
        plain = all(isinstance(given.get(name, _YES), ast.Constant) for name in ("tokenize", "return_dict"))
        if None in given or not plain or len(node.args) != 1 or number(self.versions.get("transformers", "")) < (5,):
            return None
        told = [ast.literal_eval(given.get(name, _YES)) for name in ("tokenize", "return_dict")]
        tensors = ("tensors",) if "return_tensors" in given else ()
        return Kind(ENCODING, source="apply_chat_template", keys=tensors, line=node.lineno) if told == [True, True] else None


def canonical(source: str) -> str:
    """Return the name of a function or class with its library alone.

    >>> canonical("peft.tuners.lora.LoraConfig"), canonical("transformers.trainer_utils.set_seed")
    ('peft.LoraConfig', 'transformers.set_seed')
    """
    library, *parts = source.split(".")
    if library not in _LIBRARIES or not parts:
        return source
    first = next((at for at, part in enumerate(parts) if part[:1].isupper()), len(parts) - 1)
    return ".".join((library, *parts[first:]))


def _order(callee: str) -> list[str]:
    """Return the parameters of a callee in their order."""
    if callee.endswith(".from_pretrained"):
        return ["model", "model_id"]
    if callee.startswith("bitsandbytes.optim."):
        return ["params"]
    if callee.startswith("unsloth."):
        return ["model"]
    return [*(parameters(callee) or names_of(callee, {}))] if not base_of(callee) else []


def short_name(name: str) -> str:
    """Return the name of a function without its library; that of another library as it is."""
    library, _, rest = name.partition(".")
    return rest if library in _LIBRARIES else name
