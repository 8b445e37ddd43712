"""Data of a script on its way into a training, read from the text: columns, labels, and functions that are called on them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.nodes import is_trainer
from kbitlint.source.text.bindings import Bindings, elements, is_constant, is_open, items, keyword, last, returned
from kbitlint.source.text.collators import masked, padded_labels
from kbitlint.source.text.data_sets import set_uses
from kbitlint.source.text.folder_uses import folder_uses
from kbitlint.source.text.labels import keeps_labels, label_uses
from kbitlint.source.text.mapped_functions import batched, encodings
from kbitlint.source.text.own_results import forked_cuda, result_uses
from kbitlint.source.text.pad_tokens import unpadded
from kbitlint.source.text.rendered_texts import rendered
from kbitlint.source.text.reward_forms import misread_rewards
from kbitlint.source.text.row_sets import columns
from kbitlint.source.text.row_uses import row_uses
from kbitlint.source.text.run_saves import untrained
from kbitlint.source.text.run_uses import run_uses
from kbitlint.source.text.trainer_functions import trainer_uses
from kbitlint.upstream.data_contracts import COMPARING, LABEL_COLUMNS, ONLINE, PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Def

#: columns that no model's forward takes
_RAW = frozenset(
    (
        *("question", "answer", "messages", "conversations", "caption", "image_path", "completion", "response", "output"),
        *("instruction", "query", "sentence", "transcription", "prompt", "text", "dialogue", "summary"),
    )
)
_INPUT_ENDS = ("ids", "mask", "values", "features", "labels", "label", "embeds", "thw", "sizes", "inputs")
_FORMATS = ("with_format", "set_format", "with_transform", "set_transform")


def data_uses(module: ast.Module, text: str) -> Iterator[DataUse]:
    """Yield each place where the script's data does not fit the code that takes it."""
    found = dict.fromkeys(_uses(module, text))
    refused = any(one.kind == "labels of unequal length" for one in found)  # so no collator overwrites them
    yield from (one for one in found if not (refused and one.kind == "labels overwritten"))


def _uses(module: ast.Module, text: str) -> Iterator[DataUse]:
    names = Bindings(module)
    for call in names.calls:
        name = names.full(call.func)
        if is_trainer(name):
            trainer = _Trainer(names, call, text)
            yield from trainer.uses()
            yield from () if is_open(call) else trainer_uses(names, call, text)
        elif name.endswith("SentenceTransformerTrainer"):
            yield from unlabelled_pairs(names, call)
        elif isinstance(call.func, ast.Attribute) and call.func.attr == "map" and not any(one in text for one in _FORMATS):
            yield from batched(names, call)
            yield from forked_cuda(names, call, text)
    if "apply_chat_template" in text and "AutoTokenizer" in text:
        yield from encodings(names)
    yield from masked(names, text)
    yield from padded_labels(names, text)
    yield from label_uses(names, text)
    yield from result_uses(module, names, text)
    yield from set_uses(names)
    yield from unpadded(names, text)
    yield from row_uses(names, text)
    yield from run_uses(names, text)
    yield from untrained(module, text)
    yield from folder_uses(names, text)


def unlabelled_pairs(names: Bindings, call: ast.Call) -> Iterator[DataUse]:
    """Yield a loss of sentence-transformers that compares with labels, for rows that certainly have none."""
    loss, _ = names.value(keyword(call, "loss"))
    have = columns(names, keyword(call, "train_dataset"))
    if isinstance(loss, ast.Call) and last(loss) in COMPARING and have is not None and not have & LABEL_COLUMNS:
        yield DataUse("pairs without labels", loss.lineno, last(loss))


class _Trainer:
    """One Trainer with what the script passes to it."""

    def __init__(self, names: Bindings, call: ast.Call, text: str) -> None:
        self._names, self._call, self._text = names, call, text
        self._name = names.full(call.func)
        made, _ = names.value(keyword(call, "args"))
        self._args = made if isinstance(made, ast.Call) and not is_open(made) else None

    def uses(self) -> Iterator[DataUse]:
        """Yield what does not fit."""
        if is_open(self._call):
            return
        yield from self._streamed()
        if self._name in PLAIN:
            yield from self._removed_columns()
            yield from self._unlabelled()
            yield from self._unknown_metric()
        if self._name == "trl.SFTTrainer" and "unsloth" not in self._text:
            yield from self._formatted()
            yield from self._unmarked_template()
        if self._name in ONLINE:
            yield from misread_rewards(self._names, self._call, self._maps())
        if self._name == "trl.SFTTrainer":
            yield from rendered(self._names, self._call, self._maps(), self._text)

    def _maps(self) -> list[tuple[ast.Call, Def]]:
        maps = [one for one in self._names.chain(keyword(self._call, "train_dataset")) if one.args and last(one) == "map"]
        found = [(one, self._names.function(one.args[0])) for one in maps]
        return [(one, function) for one, function in found if function is not None]

    def _streamed(self) -> Iterator[DataUse]:
        chain = list(self._names.chain(keyword(self._call, "train_dataset")))
        streams = [
            one for one in chain if is_constant(keyword(one, "streaming"), value=True) or last(one) == "to_iterable_dataset"
        ]
        if (
            streams
            and last(chain[-1]) in ("load_dataset", "from_list", "from_dict", "from_generator")
            and self._args is not None
        ):
            if is_constant(keyword(self._args, "precompute_ref_log_probs"), value=True):
                yield DataUse("streamed reference", self._args.lineno)
            steps = keyword(self._args, "max_steps")
            if steps is None or (isinstance(steps, ast.UnaryOp) and is_constant(steps.operand, 1)):
                yield DataUse("streamed without max_steps", self._args.lineno)

    def _removed_columns(self) -> Iterator[DataUse]:
        function = self._names.function(keyword(self._call, "data_collator"))
        args = self._args
        if args is None or function is None or "def forward" in self._text or "_signature_columns" in self._text:
            return
        if keyword(args, "remove_unused_columns") is not None or keyword(args, "label_names") is not None:
            return
        given = [one.arg for one in function.args.args if one.arg != "self"]
        ones = elements(function, given[0]) if given else set()
        read = {
            str(node.slice.value)
            for node in ast.walk(function)
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)
            and isinstance(node.value, ast.Name) and node.value.id in ones
        }  # fmt: skip
        raw = sorted(read & _RAW)
        if raw and not any(one.endswith(_INPUT_ENDS) for one in read):
            yield DataUse("removed columns", args.lineno, ", ".join(raw))

    def _unlabelled(self) -> Iterator[DataUse]:
        if not keeps_labels(self._names, self._call) or "Seq2Seq" in self._text:
            return
        if "label" in self._text or "ForCausalLM" not in self._text or "compute_loss" in self._text:
            return
        maps = self._maps()
        if maps and all(isinstance(one, ast.Call) and "tok" in last(one) for one in returned(maps[0][1])):
            yield DataUse("no labels", self._call.lineno)

    def _unknown_metric(self) -> Iterator[DataUse]:
        best = keyword(self._args, "metric_for_best_model") if self._args is not None else None
        if self._args is None or not isinstance(best, ast.Constant) or not isinstance(best.value, str):
            return
        metric = best.value.removeprefix("eval_")
        data, _ = self._names.value(keyword(self._call, "eval_dataset"))
        if "loss" in metric or isinstance(data, ast.Dict) or metric in ("runtime", "samples_per_second", "steps_per_second"):
            return
        if not is_constant(keyword(self._args, "load_best_model_at_end"), value=True):
            return
        given = keyword(self._call, "compute_metrics")
        function = self._names.function(given)
        known: set[str] = set()
        if given is not None:
            values = [self._names.value(one)[0] for one in returned(function)] if function is not None else []
            if not values or not all(isinstance(one, ast.Dict) and len(items(one)) == len(one.keys) for one in values):
                return
            known = {key for one in values if one is not None for key in items(one)}
        if metric not in known and f"eval_{metric}" not in known:
            yield DataUse("unknown metric", best.lineno, best.value)

    def _formatted(self) -> Iterator[DataUse]:
        function = self._names.function(keyword(self._call, "formatting_func"))
        values = returned(function) if function is not None else []
        if function is not None and values and all(isinstance(self._listed(one), (ast.List, ast.ListComp)) for one in values):
            yield DataUse("list of texts", function.lineno, getattr(function, "name", "the function"))

    def _listed(self, node: ast.expr) -> ast.AST | None:
        return self._names.value(node)[0]

    def _unmarked_template(self) -> Iterator[DataUse]:
        asked = keyword(self._args, "assistant_only_loss") if self._args is not None else None
        if not is_constant(asked, value=True) or "generation" in self._text.replace("add_generation_prompt", ""):
            return
        for node in self._names.templates:
            value, _ = self._names.value(node)
            if asked is not None and isinstance(value, ast.Constant) and isinstance(value.value, str) and "{%" in value.value:
                yield DataUse("template without marks", asked.lineno)
                return
