"""Parts of a model that a loop over ``named_parameters()`` picks by their names: packed weights, halves of adapters."""

from __future__ import annotations

import ast
import dataclasses
import re
from typing import TYPE_CHECKING

from kbitlint.facts.source import Action
from kbitlint.facts.values import UNKNOWN, Call, Span, Unknown
from kbitlint.source.interpreter.arguments import trained_copies
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.objects import Constant, Object, Scope, TrackedModel
from kbitlint.source.interpreter.predicates import truth_value
from kbitlint.source.nodes import walk
from kbitlint.upstream.versions import number

if TYPE_CHECKING:
    from kbitlint.facts.model_state import Adapters, ModelState

    Answer = bool | Unknown | None

#: blocks that stand for all, where the number of blocks is not known
_BLOCKS = (0, 1, 5, 11)
_MOST_BLOCKS = 16
_LONGEST_NAME = 200
_BLOCK_NUMBER = re.compile(r"\b\d{1,3}\b")
#: names of parameters that are neither packed nor an adapter's, as different models have them
_REST = (
    "lm_head.weight",
    "model.embed_tokens.weight",
    "model.norm.weight",
    "{block}.input_layernorm.weight",
    "{block}.mlp.bias",
)
_HALVES = ("A", "B")


class NamedParts(Interpreter):
    """The part of the interpreter that finds which parts of a model a loop over names changes."""

    def set_copies(self, net: TrackedModel, value: Object, span: Span, written: ast.expr | None) -> None:
        """Record which copies of modules, trained beside adapters, a loop over named parameters freezes or unfreezes."""
        frozen: list[str] = []
        others: list[str] = []
        for names in trained_copies(net.state):
            grads = {self._grad_of(f"base_model.model.{name}.modules_to_save.default.weight", value, written) for name in names}
            if grads == {False}:
                frozen += names
            elif grads != {None}:
                others += names
        for action, found in ((Action.FREEZE_COPIES, frozen), (Action.UNFREEZE_COPIES, others)):
            if found:
                self.trail.step(action, Call("requires_grad", span), net, net.state, tuple(found))

    def _grad_of(self, path: str, value: Object, written: ast.expr | None) -> Answer:
        """Return whether a parameter requires grad after an assignment; None if its conditions leave the parameter out."""
        self.effort.spend()
        outer, self.scope = self.scope, Scope(dict.fromkeys(self._parameter_names, Constant(path)), self.scope)
        try:
            for test, answer in self.filters:
                known = truth_value(self.value(test))
                if known is not answer:
                    return UNKNOWN if known is None else None
            said = truth_value(value if written is None else self.value(written))
            return UNKNOWN if said is None else said
        finally:
            self.scope = outer

    def set_parts(self, net: TrackedModel, value: Object, span: Span, written: ast.expr | None) -> bool:
        """Apply an assignment of ``requires_grad`` in a loop over names; return whether all names decide it."""
        paths = self._paths(net) if self.whole_loop else ()
        if not paths:
            return False
        call = Call("requires_grad", span)
        packed = {self._grad_of(f"{path}.weight", value, written) for path in self._packed(net.state, paths)}
        if packed and True in packed:
            self.trail.step(Action.UNFREEZE_PACKED, call, net, net.state)
        halves = {
            half: {self._grad_of(path, value, written) for path in self._half(net.state, paths, half)} for half in _HALVES
        }
        copies = {
            self._grad_of(f"base_model.model.{name}.modules_to_save.default.weight", value, written)
            for names in trained_copies(net.state)
            for name in names
        }
        start, block = _prefix(net.state), paths[0].removeprefix(_prefix(net.state)).rpartition(".0.")[0] + ".0"
        rest = {self._grad_of(start + path.format(block=block), value, written) for path in _REST} | copies
        if net.state.adapters is None or UNKNOWN in set().union(*halves.values()) or not all(halves.values()):
            return False
        self._set_halves(net, call, halves, rest | packed)
        return True

    @staticmethod
    def _set_halves(net: TrackedModel, call: Call, halves: dict[str, set[Answer]], rest: set[Answer]) -> None:
        """Apply the answers for the halves of adapters, and for all other parameters."""
        state, adapters = net.state, net.state.adapters
        if adapters is None:
            return
        still = adapters.still | {half for half, grads in halves.items() if grads == {False}}
        still -= {half for half, grads in halves.items() if True in grads}
        off = still == set(_HALVES)
        trainable = False if off else True if any(True in grads for grads in halves.values()) else adapters.trainable
        frozen_by = call if off else adapters.frozen_by if trainable is False else None
        adapters = dataclasses.replace(adapters, still=still, trainable=trainable, frozen_by=frozen_by)
        frozen = None if rest & {True, UNKNOWN} else True if rest == {False} else state.base_frozen
        chosen = state.chosen or bool(rest & {True, UNKNOWN})
        net.state = dataclasses.replace(state, adapters=adapters, base_frozen=frozen, chosen=chosen)

    def zero_parts(self, net: TrackedModel) -> None:
        """Record which halves of the adapters a loop over names fills with zeros."""
        adapters, paths = net.state.adapters, self._paths(net) if self.whole_loop else ()
        if adapters is None or not paths:
            return
        one = Constant(True)  # noqa: FBT003  # an answer
        found = {half: {self._grad_of(path, one, None) for path in self._half(net.state, paths, half)} for half in _HALVES}
        zeroed = adapters.zeroed | {half for half, hits in found.items() if hits == {True}}
        net.state = dataclasses.replace(net.state, adapters=dataclasses.replace(adapters, zeroed=zeroed))

    def _paths(self, net: TrackedModel) -> tuple[str, ...]:
        """Return the paths of the linear layers of a model in some of its blocks; empty if they are not known."""
        load = net.state.load
        if load is None or not self._parameter_names or load.gives("trust_remote_code"):
            return ()
        from kbitlint.upstream.architectures import NAMED_ALIKE  # these tables are for few scripts
        from kbitlint.upstream.families import facts_of  # as above
        from kbitlint.upstream.layer_paths import layer_paths  # as above

        named = net.state.named
        kind = facts_of(load.value("pretrained_model_name_or_path"), named).model_type
        if number(self.trail.versions.get("transformers", "5")) < (5,) and kind not in NAMED_ALIKE:
            return ()
        layers = named.layers if named is not None and named.layers else 0
        blocks = [*range(min(layers, _MOST_BLOCKS))] if layers else [*_BLOCKS]
        blocks += [block for block in self._blocks_named() if block not in blocks and (not layers or block < layers)]
        start = _prefix(net.state)
        return tuple(f"{start}{path}" for path in layer_paths(kind, tuple(blocks)))

    def _blocks_named(self) -> list[int]:
        """Return the numbers of blocks that the conditions of the loop name, at most some."""
        texts = (
            node.value
            for test, _ in self.filters
            for node in walk(test)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < _LONGEST_NAME
        )
        named = dict.fromkeys(int(number) for text in texts for number in _BLOCK_NUMBER.findall(text))
        return list(named)[:_MOST_BLOCKS]

    @staticmethod
    def _packed(state: ModelState, paths: tuple[str, ...]) -> tuple[str, ...]:
        """Return the paths of the weights that are integers for certain; weights that adapters wrap have another name."""
        config = state.quantization
        kept = config.value("llm_int8_skip_modules") if config is not None else None
        floating = config is not None and (
            config.value("bnb_4bit_quant_storage") is not None or config.value("llm_int8_has_fp16_weight") is not None
        )
        if not state.packed or floating or not (kept is None or isinstance(kept, tuple)):
            return ()
        names = [name for name in kept or () if isinstance(name, str)]
        if len(names) < len(kept or ()):
            return ()
        left = [path for path in paths if not any(name in path for name in names)]
        adapters = state.adapters
        if adapters is None:
            return tuple(left)
        targets = _targets(adapters)
        return () if targets is None else tuple(f"{path}.base_layer" if _is_target(path, targets) else path for path in left)

    @staticmethod
    def _half(state: ModelState, paths: tuple[str, ...], half: str) -> tuple[str, ...]:
        """Return the paths of one half of the LoRA weights; empty for other adapters, and for targets that are not known."""
        adapters = state.adapters
        config = adapters.config if adapters is not None else None
        if adapters is None or not isinstance(config, Call) or config.callee != "peft.LoraConfig":
            return ()
        targets, name = _targets(adapters), adapters.by.value("adapter_name", "default")
        if not isinstance(name, str):
            return ()
        chosen = [path for path in paths if targets is None or _is_target(path, targets)]
        return tuple(f"{path}.lora_{half}.{name}.weight" for path in chosen)


def _prefix(state: ModelState) -> str:
    """Return the start of the names of the parameters of a model: that of ``PeftModel`` around it."""
    adapters = state.adapters
    wraps = adapters is not None and adapters.by.callee.startswith("peft.") and adapters.kept
    return "base_model.model." if wraps else ""


def _targets(adapters: Adapters) -> tuple[str, ...] | None:
    """Return the names of the layers that the adapters wrap, ``*`` for all; None if they are a pattern, or not known."""
    config = adapters.config
    given = config.value("target_modules") if isinstance(config, Call) else UNKNOWN
    if given == "all-linear":
        return ("*",)
    if isinstance(given, tuple) and all(isinstance(name, str) for name in given):
        return tuple(str(name) for name in given)
    return None


def _is_target(path: str, targets: tuple[str, ...]) -> bool:
    return targets == ("*",) or any(path == name or path.endswith(f".{name}") for name in targets)
