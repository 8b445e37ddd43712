"""What a script asks of a Trainer and of what a run leaves: evaluations, metrics, checkpoints, metrics of predictions."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.nodes import children, is_trainer
from kbitlint.source.text.bindings import is_constant, is_open, items, keyword, last, returned
from kbitlint.source.text.metric_uses import metric_uses
from kbitlint.upstream.data_contracts import PLAIN
from kbitlint.upstream.run_contracts import EVALUATED, TRAINED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings

#: calls that take a path, and fail on None
_PATHS = frozenset(("from_pretrained", "load_adapter", "join", "listdir", "copytree", "Path", "exists", "from_json_file"))
#: words of code that may change what a Trainer does after it is made
_CHANGES = (
    "setattr(",
    ".set_save",
    ".set_eval",
    ".set_training",
    "hp_space",
    "hyperparameter_search",
    "_determine_best_metric",
)
#: values of arguments by which a run chooses a best checkpoint
_CHOOSES = ("best", "reduce_lr_on_plateau")
#: functions whose result is another one at each start
_NEW = frozenset(("now", "utcnow", "today", "time", "time_ns", "uuid1", "uuid4", "mkdtemp", "getpid", "token_hex", "localtime"))
_SAVES = ("save", "push_to_hub", "merge", "upload", "torch.save")


def run_uses(names: Bindings, text: str) -> Iterator[DataUse]:
    """Yield what a script asks of a run that its arguments leave out."""
    if any(one in text for one in _CHANGES):
        return
    for call in names.calls:
        owner = _trainer(names, call)
        if owner is not None and id(call) not in names.uncertain:
            yield from _asked(names, call, owner, text)
        if names.full(call.func) in PLAIN and not is_open(call):
            yield from metric_uses(names, call, text)
            yield from _saved_first(names, call, text)
            yield from _never_saved(names, call, text)
    yield from _metrics(names, text)
    yield from _best(names)


def _trainer(names: Bindings, call: ast.Call) -> ast.Call | None:
    """Return the call that makes the Trainer of transformers or TRL whose method is called; None for other calls."""
    made, _ = names.value(call.func.value) if isinstance(call.func, ast.Attribute) else (None, 0)
    known = isinstance(made, ast.Call) and is_trainer(names.full(made.func)) and not is_open(made)
    return made if isinstance(made, ast.Call) and known else None


def _arguments(names: Bindings, trainer: ast.Call) -> ast.Call | None:
    """Return the call that makes the arguments of a Trainer; None if it is not certain."""
    made, _ = names.value(keyword(trainer, "args"))
    known = isinstance(made, ast.Call) and not is_open(made) and names.full(made.func).startswith(("transformers.", "trl."))
    return made if isinstance(made, ast.Call) and known else None


def _asked(names: Bindings, call: ast.Call, trainer: ast.Call, text: str) -> Iterator[DataUse]:
    name = last(call)
    bare = name == "evaluate" and not call.args and not call.keywords and ".eval_dataset" not in text
    if bare and keyword(trainer, "eval_dataset") is None and len(trainer.args) < 5:  # model, args, collator, train, eval
        yield DataUse("evaluation without data", call.lineno)
    args = _arguments(names, trainer)
    if name != "train" or args is None:
        return
    given = keyword(call, "resume_from_checkpoint") or (call.args[0] if call.args else None)
    own = keyword(args, "resume_from_checkpoint")
    if given is None and isinstance(own, ast.Constant) and own.value and ".resume_from_checkpoint" not in text:
        yield DataUse("resume argument unread", own.lineno)
    if is_constant(given, value=True) and is_constant(keyword(args, "save_strategy"), "no"):
        yield DataUse("resumed without checkpoints", call.lineno)
    elif is_constant(given, value=True) and _is_new(
        names, keyword(args, "output_dir") or (args.args[0] if args.args else None)
    ):
        yield DataUse("resumed from a new folder", call.lineno)
    elif _resumes(names, given) and is_constant(keyword(args, "save_only_model"), value=True):
        yield DataUse("resumed without optimizer", call.lineno)


def _is_new(names: Bindings, node: ast.AST | None, depth: int = 6) -> bool:
    """Return whether a path certainly holds the time, or something random, of this start."""
    value, _ = names.value(node)
    if value is None or depth == 0:
        return False
    if isinstance(value, ast.Call) and last(value) in _NEW:
        return True
    if isinstance(value, ast.Call):
        owner = [value.func.value] if isinstance(value.func, ast.Attribute) else []
        return any(_is_new(names, one, depth - 1) for one in (*owner, *value.args))
    parts = (
        children(value)
        if isinstance(value, (ast.BinOp, ast.JoinedStr, ast.FormattedValue, ast.Attribute, ast.Subscript))
        else []
    )
    return any(_is_new(names, one, depth - 1) for one in parts)


def _resumes(names: Bindings, given: ast.expr | None) -> bool:
    """Return whether an argument certainly names a checkpoint."""
    value, _ = names.value(given)
    if isinstance(value, ast.Constant):
        return bool(value.value)
    return isinstance(value, ast.Call) and last(value) == "get_last_checkpoint"


def _result(names: Bindings, node: ast.expr) -> tuple[str, ast.Call] | None:
    """Return (method, Trainer) of the metrics that an expression is; None if it is something else."""
    value, _ = names.value(node)
    whole = isinstance(value, ast.Attribute) and value.attr == "metrics"
    made = names.value(value.value)[0] if isinstance(value, ast.Attribute) and whole else value
    trainer = _trainer(names, made) if isinstance(made, ast.Call) else None
    if trainer is not None and names.full(trainer.func) not in PLAIN:  # those of TRL compute metrics of their own
        return None
    if trainer is None or not isinstance(made, ast.Call) or keyword(made, "metric_key_prefix") is not None:
        return None
    method = last(made)
    return (method, trainer) if (method == "evaluate" and not whole) or (method == "train" and whole) else None


def _metrics(names: Bindings, text: str) -> Iterator[DataUse]:
    """Yield each metric that is read of a run, and that it certainly lacks."""
    for node in names.subscripts:
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        found = _result(names, node.value) if isinstance(key, str) else None
        if found is None or not isinstance(key, str) or f'"{key}"] =' in text or f"'{key}'] =" in text or ".update(" in text:
            continue
        why = _lacks(names, key, *found)
        if why:
            yield DataUse("metric of no run", node.lineno, why)


def _lacks(names: Bindings, key: str, method: str, trainer: ast.Call) -> str:
    """Return why a run has no metric of this name; empty if it may have one."""
    if method == "train":
        return "" if key in TRAINED else f"{key} is read of the metrics of train(), which have train_loss and no loss"
    data, _ = names.value(keyword(trainer, "eval_dataset"))
    known = _names_of_metrics(names, trainer)
    if known is None or isinstance(data, ast.Dict) or not key.startswith("eval_"):
        return ""
    if key.removeprefix("eval_") in EVALUATED | known or key in known:
        return ""
    given = "compute_metrics does not return it" if keyword(trainer, "compute_metrics") else "there is no compute_metrics"
    return f"{key} is read of an evaluation, {given}"


def _names_of_metrics(names: Bindings, trainer: ast.Call) -> set[str] | None:
    """Return the names that ``compute_metrics`` gives; None if they are not certain."""
    given = keyword(trainer, "compute_metrics")
    if given is None or is_constant(given, None):
        return set()
    function = names.function(given)
    values = [names.value(one)[0] for one in returned(function)] if function is not None else []
    if not values or not all(isinstance(one, ast.Dict) and len(items(one)) == len(one.keys) for one in values):
        return None
    return {key for one in values if one is not None for key in items(one)}


def _best(names: Bindings) -> Iterator[DataUse]:
    """Yield each load from the best checkpoint of a run that chooses none."""
    for call in names.calls:
        for one in (*call.args, *(word.value for word in call.keywords)) if last(call) in _PATHS else ():
            value, _ = names.value(one)
            if (
                not isinstance(value, ast.Attribute)
                or value.attr != "best_model_checkpoint"
                or not isinstance(value.value, ast.Attribute)
            ):
                continue
            made, _ = names.value(value.value.value)
            args = _arguments(names, made) if isinstance(made, ast.Call) and names.full(made.func) in PLAIN else None
            if args is None or keyword(args, "metric_for_best_model") is not None:
                continue
            when, rate = keyword(args, "save_strategy"), keyword(args, "lr_scheduler_type")
            plain = [one is None or (isinstance(one, ast.Constant) and one.value not in _CHOOSES) for one in (when, rate)]
            if all(plain) and keyword(args, "load_best_model_at_end") is None:
                yield DataUse("best checkpoint unknown", call.lineno, last(call))


def _saved_first(names: Bindings, trainer: ast.Call, text: str) -> Iterator[DataUse]:
    """Yield a save of adapters before the only training of a script that saves nothing after it."""
    args = _arguments(names, trainer)
    trains = [one for one in names.calls if last(one) == "train" and _trainer(names, one) is trainer]
    if args is None or len(trains) != 1 or not is_constant(keyword(args, "save_strategy"), "no") or "callbacks" in text:
        return
    model = keyword(trainer, "model") or (trainer.args[0] if trainer.args else None)
    after = [
        one for one in names.calls if one.lineno > trains[0].lineno and any(part in ast.unparse(one.func) for part in _SAVES)
    ]
    for call in names.calls:
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        own = (
            last(call) == "save_pretrained"
            and isinstance(owner, ast.Name)
            and isinstance(model, ast.Name)
            and owner.id == model.id
        )
        own = own or (last(call) == "save_model" and _trainer(names, call) is trainer)
        if (
            own
            and call.lineno < trains[0].lineno
            and not after
            and id(call) not in names.uncertain
            and "get_peft_model" in text
        ):
            yield DataUse("saved before training", call.lineno, ast.unparse(call.func))


def _never_saved(names: Bindings, trainer: ast.Call, text: str) -> Iterator[DataUse]:
    """Yield the last call of a script that trains, saves no checkpoint, and uses or stores nothing of it."""
    args = _arguments(names, trainer)
    trains = [one for one in names.calls if last(one) == "train" and _trainer(names, one) is trainer]
    if args is None or len(trains) != 1 or not is_constant(keyword(args, "save_strategy"), "no") or "allback" in text:
        return
    line, owner = trains[0].lineno, trains[0].func.value if isinstance(trains[0].func, ast.Attribute) else None
    model = keyword(trainer, "model")
    held = [one.id for one in (owner, model) if isinstance(one, ast.Name)]
    after = "\n".join(text.split("\n")[line:])
    alone = trains[0].col_offset == 0 and not any(name in after for name in held)
    if (
        alone and len(held) == 2 and not any(part in text for part in (".save", "push_to_hub", "import_module", "%run"))
    ):  # both known
        yield DataUse("nothing saved", line)
