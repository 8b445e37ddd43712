"""The calls of a script: what a library's function or method returns, and the arguments that it does not take."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.object_faults import ObjectFault
from kbitlint.source.kinds.kind import Kind
from kbitlint.source.kinds.tokenizers import asked, mismatches
from kbitlint.upstream.objects.lookup import lineage, meant_option, parameters, refused_argument, required
from kbitlint.upstream.objects.returns import (
    CONFIGS,
    DATASET,
    ENTERED,
    FIRST,
    FUNCTIONS,
    METHODS,
    MODEL,
    PEFT_MODEL,
    PURE,
    SELF,
    SPLITS,
    STREAM,
    STREAMS,
    TOKENIZER,
)
from kbitlint.upstream.objects.takes import refuses
from kbitlint.upstream.signatures.lookup import base_of, names_of

if TYPE_CHECKING:
    from collections.abc import Mapping

ENCODING = "transformers.BatchEncoding"
_LIBRARIES = frozenset(("transformers", "peft", "trl", "datasets", "accelerate"))
_MODELS = (MODEL, PEFT_MODEL)
#: what a model cannot take for its token ids
_NO_TENSOR = {ENCODING: "a BatchEncoding", "list": "a list", "str": "a text"}
#: parameters that must be an object
_NEEDED = frozenset(("model", "train_dataset", "peft_config"))

Named = "Mapping[str | None, Kind | None]"


class CallFaults:
    """The faults of calls, with the names that are in sight.

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
        self._pure: dict[int, tuple[str, str]] = {}
        self._unentered: dict[int, str] = {}
        self._starts = [0, *(at + 1 for at, letter in enumerate(text) if letter == "\n")]

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
            self.faults.append(ObjectFault(kind, owner, name, line, self._starts[line - 1], meant, version, detail))

    def called(self, function: ast.FunctionDef, given: Mapping[str, Kind | None]) -> Kind | None:
        """Return what a function of the script returns for a call."""
        raise NotImplementedError

    def library_call(
        self, source: str, node: ast.Call, places: list[Kind | None], named: Mapping[str | None, Kind | None]
    ) -> Kind | None:
        """Return what a function or class of a library returns, and note what it does not take."""
        name = canonical(source)
        if name in ENTERED:
            self._unentered[id(node)] = name
        self._arguments(name, node, named)
        self._objects(name, node, places, named)
        if name.endswith(".from_pretrained"):
            return self._loaded(name, node, places)
        if name.startswith("transformers.DataCollator"):
            return self._collator(name, node, places[0] if places else named.get("tokenizer"))
        if name.endswith("Trainer") and name.startswith(("transformers.", "trl.")):
            for kind, line, detail in mismatches([*places, *named.values()], self.text):
                self.report(kind, name.partition(".")[2], "", node, at=line, detail=detail)
        if name == "datasets.load_dataset":
            return _data(node)
        if name in CONFIGS:
            return Kind(name, source=name, line=node.lineno)
        found = FUNCTIONS.get(name, "")
        if name == "peft.get_peft_model" and "mixed" in named:
            return None
        return self._made(found, name, node, places[0] if places else named.get("model"), None)

    def _collator(self, name: str, node: ast.Call, tokenizer: Kind | None) -> Kind:
        lack = asked(tokenizer, "collator", node) if tokenizer is not None and tokenizer.name == TOKENIZER else None
        if lack is not None and tokenizer is not None:
            self.report(lack[0], name.partition(".")[2], tokenizer.text, node, at=lack[1])
        return Kind("transformers.DataCollator", source=name, owner=tokenizer)

    def _made(self, found: str, name: str, node: ast.Call, first: Kind | None, owner: Kind | None) -> Kind | None:
        if not found:
            return None
        if found in (SELF, FIRST):
            return owner if found == SELF else first
        text = first.text if found == PEFT_MODEL and first is not None else ""
        return Kind(
            found, text=text, source=name.partition(".")[2] if name.partition(".")[0] in _LIBRARIES else name, line=node.lineno
        )

    def _loaded(self, name: str, node: ast.Call, places: list[Kind | None]) -> Kind | None:
        """Return the kind that ``from_pretrained`` of a class loads; None if code beside the library may decide it."""
        library, _, cls = name.rpartition(".")[0].partition(".")
        if any(one.arg in (None, "trust_remote_code", "output_loading_info") for one in node.keywords):
            return None
        text, source = (places[0].text if places and places[0] is not None else ""), f"{cls}.from_pretrained"
        if library == "peft" and cls.startswith(("AutoPeftModel", "PeftModel")):
            return Kind(PEFT_MODEL, text=text if cls.startswith("PeftModel") else "", source=source, line=node.lineno)
        if library == "transformers" and (cls.startswith("AutoModel") or "For" in cls):
            return Kind(MODEL, text=text, source=source, line=node.lineno)
        return Kind(TOKENIZER, text=text, source=source, line=node.lineno) if cls.startswith("AutoTok") else None

    def method_call(
        self, owner: Kind, method: str, node: ast.Call, places: list[Kind | None], named: Mapping[str | None, Kind | None]
    ) -> Kind | None:
        """Return what a method of an object returns, and note what it does not take."""
        classes = [owner.name, *lineage(owner.name)]
        for cls in classes:
            if parameters(f"{cls}.{method}"):
                self._arguments(f"{cls}.{method}", node, named)
                break
        short = f"{owner.name.rpartition('.')[2]}.{method}"
        if owner.name == TOKENIZER:
            self._asked(owner, method, node)
        if short in ENTERED:
            self._unentered[id(node)] = short
        if owner.name in _MODELS and method == "generate":
            self._generation(node, places, named)
        if owner.name == "accelerate.Accelerator" and method == "prepare":
            several = len(places) > 1 and not any(isinstance(one, ast.Starred) for one in node.args)
            return Kind("tuple", tuple(places), source="Accelerator.prepare", line=node.lineno) if several else None
        found = next((METHODS[cls][method] for cls in classes if method in METHODS.get(cls, ())), "")
        if method in PURE.get(owner.name, ()):
            self._pure[id(node)] = owner.name, method
        if method == "train_test_split":
            return Kind(SPLITS, keys=("train", "test"), source=short, line=node.lineno)
        if method == "evaluate" and found:
            plain = "metric_key_prefix" not in named and len(places) < 3  # its place
            return Kind("dict", keys=("eval_",) if plain else None, source="Trainer.evaluate", line=node.lineno)
        made = self._made(found, f"{owner.name.partition('.')[0]}.{short}", node, places[0] if places else None, owner)
        return Kind(made.name, keys=owner.keys, line=made.line) if made is not None and made.name == SPLITS else made

    def object_call(
        self, owner: Kind, node: ast.Call, places: list[Kind | None], named: Mapping[str | None, Kind | None]
    ) -> Kind | None:
        """Return what the call of an object returns, and note what it does not take."""
        if owner.name == "None" and owner.source:
            self.report("none", owner.source, ast.unparse(node.func), node, at=owner.line)
        if owner.name in _MODELS:
            self._tensor(node, places, "the model")
        if owner.name != TOKENIZER:
            return None
        self._asked(owner, "__call__", node)
        for name in named:
            meant = meant_option(f"{TOKENIZER}.__call__", name) if name else ""
            if name and meant:
                self.report("ignored", "the tokenizer", name, node, meant=meant)
        return Kind(ENCODING, source="the tokenizer", keys=("tensors",) if "return_tensors" in named else (), line=node.lineno)

    def _asked(self, owner: Kind, method: str, node: ast.Call) -> None:
        """Note what a call asks of a tokenizer that its checkpoint does not have."""
        lack = asked(owner, method, node)
        if lack is not None:
            self.report(lack[0], owner.source, owner.text, node, at=lack[1])

    def _generation(self, node: ast.Call, places: list[Kind | None], named: Mapping[str | None, Kind | None]) -> None:
        self._tensor(node, places, "generate")
        for name in named:
            meant = meant_option("transformers.GenerationConfig", name) if name else ""
            if name and meant:
                self.report("keyword", "generate", name, node, meant=meant, detail="a ValueError")

    def _tensor(self, node: ast.Call, places: list[Kind | None], what: str) -> None:
        kind = places[0] if places else None
        if kind is not None and kind.name in _NO_TENSOR and not isinstance(node.args[0], ast.Starred):
            self.report(
                "class",
                what,
                ast.unparse(node.args[0]),
                node,
                detail=f"is {_NO_TENSOR[kind.name]}, and token ids must be a tensor",
            )

    def _arguments(self, callee: str, node: ast.Call, named: Mapping[str | None, Kind | None]) -> None:
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

    def _objects(self, callee: str, node: ast.Call, places: list[Kind | None], named: Mapping[str | None, Kind | None]) -> None:
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
            if why:
                self.report("class", callee.partition(".")[2], name, value, detail=why)

    def drop(self, node: ast.Call) -> None:
        """Note the result of a call that is a statement of its own, if the call does nothing else."""
        found = self._pure.get(id(node))
        if found is not None:
            self.report("dropped", found[0], found[1], node)
        if id(node) in self._unentered:
            self.report("unentered", self._unentered[id(node)], ast.unparse(node.func), node)

    def ordered(self, target: ast.Tuple | ast.List, value: ast.expr) -> None:
        """Note names that get the results of ``prepare`` in another order than it was given them."""
        if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Attribute) or value.func.attr != "prepare":
            return
        into, given = [ast.unparse(one) for one in target.elts], [ast.unparse(one) for one in value.args]
        if into != given and sorted(into) == sorted(given):
            self.report("order", "Accelerator.prepare", ", ".join(into), value, meant=", ".join(given))


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
    return [*(parameters(callee) or names_of(callee, {}))] if not base_of(callee) else []


def _data(node: ast.Call) -> Kind | None:
    """Return the kind that ``load_dataset`` returns; None if its arguments do not tell."""
    named = {one.arg: one.value for one in node.keywords}
    split, streams = named.get("split"), named.get("streaming")
    if None in named or len(node.args) > 4 or (streams is not None and not isinstance(streams, ast.Constant)):  # its place
        return None
    streamed = isinstance(streams, ast.Constant) and bool(streams.value)
    if split is None:
        return Kind(STREAMS if streamed else SPLITS, source="load_dataset", line=node.lineno)
    text = isinstance(split, ast.JoinedStr) or (isinstance(split, ast.Constant) and isinstance(split.value, str))
    return Kind(STREAM if streamed else DATASET, source="load_dataset", line=node.lineno) if text else None
