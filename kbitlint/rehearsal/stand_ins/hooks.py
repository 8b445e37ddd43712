"""The user's forward hooks, in a rehearsal that replaces the forward pass. They receive outputs without values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.rehearsal.inside.record import Record

#: packages whose own hooks are not called, since they serve the pass that is replaced
_LIBRARIES = frozenset(("transformers", "peft", "accelerate", "torch", "bitsandbytes", "trl", "kbitlint", "diffusers"))


def fire(record: Record, module: nn.Module, shape: tuple[int, int], made: Any) -> Any:
    """Call the user's forward hooks on a model and its parts, and return the model's output.

    Args:
        record: The record of the rehearsal.
        module: The model.
        shape: The sequences and tokens of its input.
        made: The output in place of that of the forward pass. A hook may replace it.
    """
    from transformers import PreTrainedModel  # imported by the script long ago
    from transformers.modeling_outputs import BaseModelOutputWithPast  # see above

    for part in reversed(list(module.modules())):
        hooks = [(key, hook) for key, hook in part._forward_hooks.items() if _is_users(hook)]  # noqa: SLF001  # torch has no other list
        if not hooks:
            continue
        record.guessed = True
        states = _states(part, module, shape)
        output = made if part is module else BaseModelOutputWithPast(states) if isinstance(part, PreTrainedModel) else states
        for key, hook in hooks:
            named: tuple[Any, ...] = ({},) if key in part._forward_hooks_with_kwargs else ()  # noqa: SLF001  # see above
            changed = hook(part, (states,), *named, output)
            if part is module and changed is not None:
                made = output = changed
    return made


def _is_users(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "") or type(hook).__module__).partition(".")[0] not in _LIBRARIES


def _states(part: nn.Module, module: nn.Module, shape: tuple[int, int]) -> torch.Tensor:
    """Return hidden states without values, as wide as the output of a part."""
    config: Any = getattr(module, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    width = getattr(part, "out_features", None) or getattr(text, "hidden_size", None) or 1
    dtype = next((p.dtype for p in part.parameters() if p.is_floating_point()), torch.float32)
    return torch.empty((*shape, int(width)), dtype=dtype, device="meta", requires_grad=torch.is_grad_enabled())
