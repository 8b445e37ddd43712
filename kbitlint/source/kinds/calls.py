"""The calls of a script: what a library's function or method returns, and the arguments that it does not take."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.source.kinds.arguments import ENCODING, ArgumentFaults, canonical, short_name
from kbitlint.source.kinds.kind import Kind
from kbitlint.source.kinds.tokenizers import CHAT_TEXT, asked, chat_text, mismatches
from kbitlint.source.nodes import is_trainer
from kbitlint.upstream.objects.lookup import lineage, meant_option, parameters
from kbitlint.upstream.objects.returns import (
    CONFIGS,
    DATASET,
    ENTERED,
    FIRST,
    FUNCTIONS,
    METHODS,
    MODEL,
    OPTIMIZER,
    PEFT_MODEL,
    PURE,
    RANKED,
    SCHEDULER,
    SELF,
    SPLITS,
    STREAM,
    STREAMS,
    TOKENIZER,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODELS = (MODEL, PEFT_MODEL)
#: methods that do their work when they are called, whatever has them
CALLED_ALWAYS = frozenset(
    ("backward", "zero_grad", "gradient_checkpointing_enable", "enable_input_require_grads", "save_pretrained", "save_model")
)
#: further ones, of these objects
CALLED_BY_OWNERS = frozenset(
    ("train", "eval", "step", "push_to_hub", "merge_and_unload", "merge_adapter", "evaluate", "requires_grad_")
)
_CALLED_OWNERS = (*_MODELS, OPTIMIZER, SCHEDULER)

Named = "Mapping[str | None, Kind | None]"


class CallFaults(ArgumentFaults):
    """The faults of calls, with the names that are in sight.

    Args:
        versions: The versions of the libraries.
        text: The text of the script.
    """

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
        self.arguments(name, node, named)
        self.objects(name, node, places, named)
        if name.endswith(".from_pretrained"):
            return self._loaded(name, node, places)
        if name.startswith("transformers.DataCollator"):
            return self._collator(name, node, places[0] if places else named.get("tokenizer"))
        if is_trainer(name):
            for kind, line, detail in mismatches([*places, *named.values()], self.text):
                self.report(kind, name.partition(".")[2], "", node, at=line, detail=detail)
        if name == "datasets.load_dataset":
            return _data(node)
        if name in CONFIGS:
            end = named.get("eos_token") if name in ("trl.SFTConfig", "trl.RewardConfig") else None
            return Kind(name, source=name, line=node.lineno, text=end.text if end is not None else "")
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
            found,
            text=text,
            source=short_name(name),
            line=node.lineno,
        )

    def _loaded(self, name: str, node: ast.Call, places: list[Kind | None]) -> Kind | None:
        """Return the kind that ``from_pretrained`` of a class loads; None if code beside the library may decide it."""
        library, _, cls = name.rpartition(".")[0].partition(".")
        if library == "unsloth" and cls.startswith("Fast") and "." not in cls:
            return Kind("tuple", (None, None), source=f"{cls}.from_pretrained", line=node.lineno)
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
                self.arguments(f"{cls}.{method}", node, named)
                break
        short = f"{owner.name.rpartition('.')[2]}.{method}"
        if owner.name == TOKENIZER:
            self._asked(owner, method, node)
        if short in ENTERED:
            self._unentered[id(node)] = short
        if owner.name in _MODELS and method == "generate":
            self._generation(node, places, named)
        if method == "add_adapter" and owner.name in _MODELS and places and not isinstance(node.args[0], ast.Starred):
            self._added(owner, places[0], node)
        if owner.name == "accelerate.Accelerator" and method in ("prepare", "unwrap_model"):
            return self._prepared(method, node, places)
        if owner.name == TOKENIZER and method == "apply_chat_template":
            return chat_text(owner, node) or self.chat_encoding(node)
        if method in PURE.get(owner.name, ()):
            self._pure[id(node)] = owner.name, method
        return self._result(owner, method, node, places, named)

    def _prepared(self, method: str, node: ast.Call, places: list[Kind | None]) -> Kind | None:
        """Return what an Accelerator prepares; a model of several ranks is wrapped in DDP until it is unwrapped."""
        if method == "unwrap_model":
            first = places[0] if places else None
            return None if first is not None and first.name in RANKED else first
        self._lost[id(node)] = ", ".join(ast.unparse(one) for one in node.args)
        several = len(places) > 1 and not any(isinstance(one, ast.Starred) for one in node.args)
        if self.ranked:
            places = [Kind(RANKED[0]) if one is not None and one.name in _MODELS else one for one in places]
        return Kind("tuple", tuple(places), source="Accelerator.prepare", line=node.lineno) if several else None

    def _result(
        self, owner: Kind, method: str, node: ast.Call, places: list[Kind | None], named: Mapping[str | None, Kind | None]
    ) -> Kind | None:
        """Return what a method of an object returns."""
        classes, short = [owner.name, *lineage(owner.name)], f"{owner.name.rpartition('.')[2]}.{method}"
        found = next((METHODS[cls][method] for cls in classes if method in METHODS.get(cls, ())), "")
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
            self.tensor(node, places, "the model")
        if owner.name != TOKENIZER:
            return None
        self._asked(owner, "__call__", node)
        for name in named:
            meant = meant_option(f"{TOKENIZER}.__call__", name) if name else ""
            if name and meant:
                self.report("ignored", "the tokenizer", name, node, meant=meant)
        whole = any(isinstance(one, ast.Starred) for one in node.args) or None in named
        first = places[0] if places else named.get("text")
        if first is not None and first.source == CHAT_TEXT and "add_special_tokens" not in named and not whole:
            self.report("bos", "the tokenizer", owner.text, node)
        tensors = ("tensors",) if whole or "return_tensors" in named else ()
        marks = owner.marks if "padding" in named and (first is None or first.name != "str") else ()
        return Kind(ENCODING, source="the tokenizer", keys=tensors, marks=marks, line=node.lineno)

    def _asked(self, owner: Kind, method: str, node: ast.Call) -> None:
        """Note what a call asks of a tokenizer that its checkpoint does not have."""
        lack = asked(owner, method, node)
        if lack is not None:
            self.report(lack[0], owner.source, owner.text, node, at=lack[1])

    def _generation(self, node: ast.Call, places: list[Kind | None], named: Mapping[str | None, Kind | None]) -> None:
        self.tensor(node, places, "generate")
        self.encoding(node, named)
        given = named.get(None)
        if given is not None and given.marked("right"):
            self.report("right", "generate", "padding_side", node, at=given.marked("right"))
        for name in named:
            meant = meant_option("transformers.GenerationConfig", name) if name else ""
            if name and meant:
                self.report("keyword", "generate", name, node, meant=meant, detail="a ValueError")

    def drop(self, node: ast.Call) -> None:
        """Note the result of a call that is a statement of its own, if the call does nothing else."""
        found = self._pure.get(id(node))
        if found is not None:
            self.report("dropped", found[0], found[1], node)
        if len(node.args) > 1 and id(node) in self._lost:
            self.report("lost", "Accelerator.prepare", "prepare", node, meant=self._lost[id(node)])
        if id(node) in self._unentered:
            self.report("unentered", self._unentered[id(node)], ast.unparse(node.func), node)

    def _added(self, owner: Kind, first: Kind | None, node: ast.Call) -> None:
        """Note the arguments of ``add_adapter`` in the order of the other library: only PEFT takes the name first."""
        named = owner.name == PEFT_MODEL
        if first is None or first.name != ("peft.LoraConfig" if named else "str"):
            return
        what = (
            "an object of LoraConfig, and must be the adapter's name" if named else "a text, and must be the adapter's config"
        )
        self.report("class", "add_adapter", ast.unparse(node.args[0]), node, detail=f"is {what}: its order is the other one")

    def uncalled(self, node: ast.Attribute, kind: Kind | None) -> None:
        """Note a statement that names a method and does not call it."""
        owner = kind.owner.name if kind is not None and kind.name == "method" and kind.owner is not None else ""
        known = owner in _CALLED_OWNERS or owner.endswith("Trainer")
        if node.attr in CALLED_ALWAYS or (known and node.attr in CALLED_BY_OWNERS):
            self.report("uncalled", owner, node.attr, node, detail=ast.unparse(node))

    def ordered(self, target: ast.Tuple | ast.List, value: ast.expr) -> None:
        """Note names that get the results of ``prepare`` in another order than it was given them."""
        if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Attribute) or value.func.attr != "prepare":
            return
        into, given = [ast.unparse(one) for one in target.elts], [ast.unparse(one) for one in value.args]
        if into != given and sorted(into) == sorted(given):
            self.report("order", "Accelerator.prepare", ", ".join(into), value, meant=", ".join(given))


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
