"""A small training batch for a model, derived from its signature, its config and what its class documents."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from kbitlint.model.attributes import attribute
from kbitlint.model.inputs.announced import with_placeholders
from kbitlint.model.inputs.denoiser import conditions_of, is_denoiser
from kbitlint.model.inputs.dimensions import Dimensions
from kbitlint.model.inputs.entries import RECORD, changed, gathered
from kbitlint.model.inputs.interface import interface_of
from kbitlint.model.inputs.labels import label_names, labels_of
from kbitlint.model.inputs.media import float_dtype, media_of
from kbitlint.model.inputs.plan import DOCUMENTED, Plan
from kbitlint.model.inputs.positions import limited
from kbitlint.model.inputs.recipes import value_of
from kbitlint.model.inputs.structure import accepted, config_of, described, input_of
from kbitlint.model.inputs.supplied import STEP, own_batch, own_step
from kbitlint.model.inputs.tensors import made_for
from kbitlint.model.inputs.tokens import placeholders, tokens_of
from kbitlint.model.layers import adapters
from kbitlint.model.layers.adapter_inputs import with_adapter_inputs
from kbitlint.model.layers.checkpointing import FLAG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.model.inputs.interface import Argument

#: the argument with which TRL's loss calls the forward that TRL gave a model
FUSED = "fused_lm_head"


def training_batch(
    model: nn.Module, device: str | torch.device, batch: int = 2, seq_len: int = 16, plan: Plan = DOCUMENTED
) -> dict[str, Any]:
    """Return inputs and labels for one training step.

    The inputs are ``input_ids`` of shape (batch, seq_len), or the model's main input, and every argument without a default.
    Labels are added if the class accepts them. Token ids with a meaning in the config (image, audio, padding, decoder start)
    are avoided. A text-only batch must not announce an image. The cache is off, as in transformers' Trainer, unless torch's
    wrapper checkpoints layers.

    Args:
        model: The model. Wrappers around it are skipped.
        device: The device of the tensors.
        batch: Sequences in the batch.
        seq_len: Tokens in each sequence. Models with fewer positions get shorter ones.
        plan: Changes of the batch, as a correction found them.
    """
    base: Any = described(model)
    own = own_batch(base, device)
    if own is not None:
        return own
    if plan.method != "forward":
        made = {name: value_of(name, recipe, float_dtype(base)) for name, recipe in plan.recipes.items()}
        return {f".{plan.method}": _on(made, device)}
    arguments = interface_of(base, plan.given)
    config: Any = config_of(base)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    length = limited(base, text, plan.seq_len or seq_len)
    dimensions = Dimensions(config, batch, length, plan.dimensions)
    tokens = tokens_of(config, text, (batch, length))
    made = media_of(base, arguments, getattr(base, "main_input_name", "input_ids"), dimensions, tokens)
    if "pixel_values" in made:
        tokens = torch.cat([placeholders(config, batch), tokens], dim=1)
    tokens = with_placeholders(tokens, plan.placeholders)
    books = _codebooks(base)
    made |= _text(base, arguments, dimensions, tokens, books, "pixel_values" in made)
    if is_denoiser(arguments):
        made |= conditions_of(arguments, dimensions, float_dtype(base), plan)
    made |= _documented(base, arguments, dimensions, plan, made)
    made |= labels_of(base, arguments, dimensions, tokens, books, plan)
    made |= {name: value_of(name, recipe, float_dtype(base)) for name, recipe in plan.recipes.items()}
    if "use_cache" in _parameters(base):
        made["use_cache"] = _fills_cache(base)
    names = accepted(model)
    taken = {
        name: _on(value, device)
        for name, value in gathered(made, plan).items()
        if name not in plan.without and (names is None or name in names or name.startswith("*"))
    }
    return with_adapter_inputs(model, taken | _asked_by_trainers(model, base))


def _fills_cache(base: nn.Module) -> bool:
    """Return whether a step fills the key-value cache where torch's wrapper runs layers again, which fills it twice.

    Layers that checkpoint by themselves drop the cache, and ``Trainer`` of transformers 5 switches it off in the config.
    """
    modules = list(base.modules())
    wrapped = any("_checkpoint_wrapped_module" in module._modules for module in modules)  # noqa: SLF001  # a dictionary read
    drops = wrapped and any(module.__dict__.get(FLAG) for module in modules)
    return wrapped and not drops and attribute(config_of(base), "use_cache") is True


def _asked_by_trainers(*modules: nn.Module) -> dict[str, bool]:
    """Return the argument with which TRL's trainers call the forward that they gave a model.

    ``add_fused_lm_head`` of TRL 1.16 hides it behind the signature of the class. The loss then reads the weight of the head,
    whose own forward does not run.
    """
    forwards = [module.__dict__.get("forward") for module in modules]
    codes = [getattr(getattr(forward, "__func__", forward), "__code__", None) for forward in forwards]
    named = [code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] for code in codes if code is not None]
    return {FUSED: True} if any(FUSED in names for names in named) else {}


def _text(
    base: Any,
    arguments: Mapping[str, Argument],
    dimensions: Dimensions,
    tokens: Tensor,
    books: int,
    has_images: bool,  # noqa: FBT001  # a fact of the batch so far
) -> dict[str, Tensor]:
    """Return the token ids, and what belongs to each of them."""
    made: dict[str, Tensor] = {}
    if "input_ids" in arguments:
        ids = tokens.repeat_interleave(books, dim=0) if books else tokens
        choices = [symbol for symbol in (arguments["input_ids"].shape or ())[1:-1] if symbol.startswith("num_")]
        if not choices and "MultipleChoice" in type(base).__name__:
            choices = ["num_choices"]
        for symbol in choices:
            ids = ids.unsqueeze(1).repeat(1, dimensions.of(symbol), 1)
        made["input_ids"] = ids
        if "attention_mask" in arguments:
            made["attention_mask"] = torch.ones_like(ids if choices else tokens)
    elif (
        getattr(base, "main_input_name", "") == "inputs" and not has_images
    ):  # a class for any modality; with a vocabulary its input is text
        made["inputs"] = tokens
    if "mm_token_type_ids" in arguments:  # the whole batch is text
        made["mm_token_type_ids"] = torch.zeros_like(tokens)
    if "bbox" in arguments and has_images:  # the position of each token on the page
        made["bbox"] = torch.zeros((*tokens.shape, 4), dtype=torch.long)
    return made


def _documented(
    base: Any, arguments: Mapping[str, Argument], dimensions: Dimensions, plan: Plan, made: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the main input and every argument that is required or planned, as the class documents them."""
    main, dtype, labels = getattr(base, "main_input_name", ""), float_dtype(base), label_names(arguments)
    found: dict[str, Any] = {}
    for name, argument in arguments.items():
        planned = name in plan.given or name in plan.shapes or name in plan.kinds
        wanted = (argument.required or (name == main and not made)) and name not in made
        if (planned or wanted) and name not in labels:
            value = _one(base, argument, dimensions, dtype, plan)
            if value is not None:
                found[name] = value
    return found


def _one(base: Any, argument: Argument, dimensions: Dimensions, dtype: torch.dtype, plan: Plan) -> Any:
    """Return the value of one argument. None if its documentation and the layers of the model tell too little."""
    kind = plan.kinds.get(argument.name, argument.kind)
    value = made_for(argument, dimensions, dtype, plan)
    if value is not None or kind == RECORD:
        return value
    if argument.kind == "features":
        return _text_of(dimensions)
    if argument.required and kind in ("float", "long"):
        return input_of(base, argument, dimensions, dtype, plan)
    return None


def _text_of(dimensions: Dimensions) -> dict[str, Tensor]:
    """Return token ids and their mask as one dictionary, which is the only argument of sentence-transformers' modules.

    Args:
        dimensions: The dimensions of the batch.
    """
    config = dimensions.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    tokens = tokens_of(config, text, (dimensions.batch, dimensions.seq_len))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def _parameters(base: nn.Module) -> Mapping[str, Any]:
    return inspect.signature(base.forward).parameters


def _on(value: Any, device: str | torch.device) -> Any:
    """Return a value with its tensors on a device."""
    if type(value) is list:
        return [_on(item, device) for item in value]
    return changed(value, lambda tensor: tensor.to(device))


def _codebooks(base: nn.Module) -> int:
    """Return the number of id rows in one sequence, or 0 for one row. Models of audio codes embed each codebook separately."""
    found = adapters.input_embedding(base)
    return len(found) if isinstance(found, nn.ModuleList) else 0


def called(model: nn.Module, batch: Mapping[str, Any]) -> Any:
    """Return the output of a model on a batch, or that of the step that a batch names.

    Arguments before ``*inputs`` are passed by position.
    """
    method = next((name for name in batch if name.startswith(".")), None)
    if method is not None:
        step = own_step()
        return step(model, batch[method]) if method == STEP and step else getattr(model, method[1:])(**batch[method])
    several = next((name for name in batch if name.startswith("*")), None)
    if several is None:
        return model(**batch)
    parameters = inspect.signature(described(model).forward).parameters.values()
    first = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD and one.name in batch]
    rest = {name: value for name, value in batch.items() if name != several and name not in first}
    return model(*(batch[name] for name in first), *batch[several], **rest)


def loss_of(output: Any) -> Tensor:
    """Return the loss of a model's output.

    It is the loss that the output names. If the class computes none, it is the mean of the first floating-point tensor with a
    graph, or of the first one. The user of a module of no library may compute a loss of each tensor that it returns, so the
    means of all of them add up.

    Raises:
        ValueError: The output holds no floating-point tensor.
    """
    loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
    if isinstance(loss, Tensor):
        return loss.mean()
    values = [value for value in _tensors(output) if value.is_floating_point() or value.is_complex()]
    if not values:
        raise ValueError(f"{type(output).__name__} holds no floating tensor to train on")
    if not isinstance(output, ModelOutput):
        used = [_mean(value) for value in values if value.requires_grad]
        return torch.stack(used).sum() if len(used) > 1 else (used or [_mean(values[0])])[0]
    return _mean(next((value for value in values if value.requires_grad), values[0]))


def _mean(value: Tensor) -> Tensor:
    return (value.abs() if value.is_complex() else value).float().mean()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, (dict, type)):
        yield from _tensors(vars(value))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
