"""Why a traced step failed, tried on a small copy of the model's class that has weights.

A step without weights may fail where training does not: a stand-in, a guess or the made batch is at fault. So the same batch
runs on a small copy: the same class and adapters, two layers, random weights on the CPU. Only an error that this copy raises
too, and that a copy without the cause does not raise, is an error of training. ``carried.py`` gives the copy what the modules
of the model have beyond their class.
"""

from __future__ import annotations

import copy
import itertools
import re
import traceback
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from kbitlint.errors import one_line
from kbitlint.model.attributes import attribute
from kbitlint.model.batch import called, loss_of, training_batch
from kbitlint.model.inputs.supplied import is_supplied
from kbitlint.model.layers import adapters, checkpointing
from kbitlint.model.trace.carried import carry, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from kbitlint.model.trace.step import StepSettings

#: the most parameters of a small copy. Building one of this size and a step on it take about a second.
MAX_PARAMETERS = 60_000_000

_LAYERS = 2
_HEADS = 4
_LAYER_COUNTS = frozenset(
    [
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth"),
        *("decoder_layers", "encoder_layers", "num_decoder_layers", "num_encoder_layers"),
    ]
)
_HEAD_COUNTS = ("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads", "decoder_attention_heads")
_WIDTHS = ("hidden_size", "d_model", "n_embd")
#: files of kernels and of the trace
_BENEATH = re.compile(r"[/\\\\](?:torch|kbitlint|bitsandbytes)[/\\\\]|^<")
_FEED_FORWARD = ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner")


class NotBuiltError(Exception):
    """A small copy that cannot be made. The message is the reason."""


class TrainsError(NotBuiltError):
    """A small copy that trains on the batch, so that the batch fits the class."""


def error_of_training(model: nn.Module, error: Exception, how: StepSettings) -> Exception | None:
    """Return the error that training raises where a traced step raised one, or None if the batch may be at fault.

    The small copy must raise it, and must not raise it without the adapters, without what it took over from the modules, or
    once each special token has a number.

    Args:
        model: The model that was traced.
        error: The error of the traced step.
        how: The settings of the traced step.

    Raises:
        NotBuiltError: There is no small copy, so the question is open. Or it trains, so the traced step is at fault.
    """
    if _lacks_attribute(model, error):
        return error
    base = adapters.base_of(model)
    if not isinstance(base, PreTrainedModel) or not (
        model is base or (_is_of_peft(model) and adapters.own_base(model) is base)
    ):
        how_to = "the batch is yours" if is_supplied(base) else "pass a batch of yours: kbitlint.check(model, inputs=...)"
        raise NotBuiltError(f"no library documents what {type(base).__name__} takes; {how_to}")
    raised: Exception | None
    try:
        raised = _raised(model, base, how)
    except NotBuiltError:
        if model is base or not _alike(_raised(base, base, how), error):
            raise
        model, raised = base, error  # what the class itself raises, it raises with its adapters too
    if raised is None:
        raise TrainsError("a small copy with weights trains on such a batch")
    if not _alike(raised, error):
        raise NotBuiltError(f"a small copy with weights raises another error, {one_line(raised)}")
    return raised if how.loss is not None or _has_cause(model, base, how) else None  # the batch of a loss is the user's


def _has_cause(model: nn.Module, base: PreTrainedModel, how: StepSettings) -> bool:
    """Return whether a copy trains without something that the model has and its class alone has not."""
    if model is not base and _raised(base, base, how) is None:
        return True
    return _raised(model, base, how, carries=False) is None or _raised(model, base, how, numbered=True) is None


def _lacks_attribute(model: nn.Module, error: BaseException) -> bool:
    """Return whether code asks a module of the model, or a config of one, for an attribute that it lacks.

    No batch and no weight changes that.
    """
    asked = re.fullmatch(r"'(\w+)' object has no attribute '(\w+)'", str(error)) if isinstance(error, AttributeError) else None
    if asked is None:
        return False
    known = [*model.modules(), *(attribute(module, "config") for module in model.modules())]
    owners = [owner for owner in known if type(owner).__name__ == asked[1]]
    return bool(owners) and not any(hasattr(module, asked[2]) for module in owners)


def _raised(
    model: nn.Module, base: PreTrainedModel, how: StepSettings, *, numbered: bool = False, carries: bool = True
) -> Exception | None:
    """Return the error of a step on a small copy with weights, or None if it trains."""
    made = _built(base, numbered=numbered, narrow=not how.plan.shapes)
    if carries:
        carry(base, made)
    try:
        if model is not base:
            made = _adapted(model, made)
    except Exception as error:
        raise NotBuiltError(f"a small copy gets no adapters: {one_line(error)}") from error
    if carries:
        wrap(base, adapters.base_of(made))
    made.train()
    try:
        _checkpoint(made, how)
        _loss(made, how).backward()
    except Exception as error:  # noqa: BLE001  # the error is the result
        return error
    return None


def _loss(made: Any, how: StepSettings) -> Tensor:
    if how.loss is not None:
        return how.loss.of(made, emptied=False)
    return loss_of(called(made, training_batch(made, "cpu", how.batch, how.seq_len, how.plan)))


def _checkpoint(made: Any, how: StepSettings) -> None:
    """Enable checkpointing as on the model, or as the training loop enables it."""
    loop, bound = how.context.gradient_checkpointing, how.facts.checkpointing
    if loop is not None and loop.enabled:
        checkpointing.enable(adapters.base_of(made), use_reentrant=loop.use_reentrant is not False)
    elif bound:
        checkpointing.enable(adapters.base_of(made), use_reentrant=bound[0].reentry.reentrant)


def _alike(first: Exception | None, second: Exception) -> bool:
    """Return whether two errors, or errors during which they were raised, differ at most in their numbers.

    Kernels without weights tell of the same fault in other words: at the same line of the model's code, errors of one class
    count as alike.
    """
    # the copy runs while the traced step's error is handled, which is thus the last context of its own
    chains = (itertools.takewhile(lambda error: error is not second, _chain(first)), _chain(second))
    ones, others = ({re.sub(r"\d+", "#", one_line(error)) for error in chain} for chain in chains)
    place = _place(second)
    return bool(ones & others) or (type(first) is type(second) and place is not None and _place(first) == place)


def _place(error: BaseException | None) -> tuple[str, int] | None:
    """Return the last line of code that is neither a kernel's nor of the trace, as (file, line); None if there is none."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else ()
    return next(((f.filename, f.lineno or 0) for f in reversed(frames) if not _BENEATH.search(f.filename)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that were handled when it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_peft(model: nn.Module) -> bool:
    return type(model).__module__.startswith("peft.") and isinstance(attribute(model, "peft_config"), dict)


def _adapted(model: Any, base: Any) -> Any:
    """Return a small base with the adapters of a model, and the same of them active."""
    from peft import get_peft_model  # an optional dependency, imported already

    configs = {name: _retargeted(config) for name, config in model.peft_config.items()}
    first, *others = configs
    made: Any = get_peft_model(base, configs[first], adapter_name=first)
    for name in others:
        made.add_adapter(name, configs[name])
    active = [one.name for one in adapters.adapters_of(model, adapters.base_of(model)) if one.active]
    if active != [first]:
        made.base_model.set_adapter(active)
    return made


def _retargeted(config: Any) -> Any:
    """Return a copy of an adapter's config that trains, and that names its targets without the wrappers around layers."""
    made = copy.deepcopy(config)
    made.inference_mode = False
    targets = attribute(made, "target_modules")
    if isinstance(targets, (list, set)):
        hidden = set(adapters.SEEN_THROUGH)
        made.target_modules = {".".join(part for part in name.split(".") if part not in hidden) for name in targets}
    return made


def _built(base: PreTrainedModel, *, numbered: bool, narrow: bool = True) -> Any:
    """Return a small model of the class of a base, in float32 on the CPU.

    Args:
        base: The base model.
        numbered: Whether special tokens without a number get one, as training scripts set them.
        narrow: Whether the width may be divided. The shapes of a corrected batch fit the model's own width.

    Raises:
        NotBuiltError: The class cannot be built small.
    """
    reason = "its class cannot be built small"
    for narrowed in (True, False) if narrow else (False,):
        try:
            config = small(base.config, narrow=narrowed)
            if numbered:
                _number_tokens(config)
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in type(base)(config).parameters())
            if size > MAX_PARAMETERS:
                reason = f"a small copy would have {size:,} parameters"
                continue
            with torch.device("cpu"):
                return type(base)(config).float()
        except Exception as error:  # noqa: BLE001  # a class that cannot be built gives no answer
            reason = f"its class cannot be built small: {one_line(error)}"
    raise NotBuiltError(reason)


def small(config: Any, *, narrow: bool) -> Any:
    """Return a config of the same class with at most two layers.

    Args:
        config: The config, which stays as it is.
        narrow: Whether the width is divided too, so that four heads of the same size are left.
    """
    made = copy.deepcopy(config)
    for part in _parts(made):
        values = vars(part)
        values.pop("quantization_config", None)
        counts = {values[name] for name in _LAYER_COUNTS & set(values) if isinstance(values[name], int)}
        for name in _LAYER_COUNTS & set(values):
            if isinstance(values[name], int):
                values[name] = min(values[name], _LAYERS)
        for name, value in values.items():
            if isinstance(value, list) and len(value) > _LAYERS and len(value) in counts:
                values[name] = value[:_LAYERS]
        if narrow:
            _narrow(values)
    return made


def _parts(config: Any) -> Iterator[Any]:
    """Yield a config and the configs in it."""
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PreTrainedConfig):
            yield from _parts(value)


def _narrow(values: dict[str, Any]) -> None:
    """Divide heads and width by one number, and limit the feed-forward size, in place."""
    counts = [values[name] for name in _HEAD_COUNTS if isinstance(values.get(name), int)]
    heads, shared = min(counts, default=0), values.get("num_key_value_heads")
    groups = heads // shared if isinstance(shared, int) and shared else 1
    factor = heads // max(_HEADS, groups)
    widths = [values[name] for name in _WIDTHS if isinstance(values.get(name), int)]
    if factor < 2 or any(number % factor for number in (*counts, *widths)):
        return
    for name in (*_HEAD_COUNTS, *_WIDTHS):
        if isinstance(values.get(name), int):
            values[name] //= factor
    if isinstance(shared, int):
        values["num_key_value_heads"] = max(1, shared // factor)
    for name in _FEED_FORWARD:
        if isinstance(values.get(name), int):
            values[name] = min(values[name], 4 * max(widths) // factor)


def _number_tokens(config: Any) -> None:
    """Give the padding and the first decoder token a number where they have none, in place."""
    for part in _parts(config):
        for name in ("pad_token_id", "decoder_start_token_id"):
            if getattr(part, name, 0) is None:
                vars(part)[name] = 0
