"""Models whose faults only a training step shows, for the tests of rules on the trace."""

from __future__ import annotations

import tiny
import torch

import kbitlint
from kbitlint.context import TrainingContext

NO_AUTOCAST = TrainingContext(autocast_dtype="float32")


def violations(model, code, context=NO_AUTOCAST):
    """Return the violations of one rule."""
    return list(kbitlint.check(model, select=code, context=context).violations)


def trace_findings(model, code, context=NO_AUTOCAST):
    """Return (path, severity, message) of each violation of one rule."""
    return [(v.at.path, v.severity.value, v.message) for v in violations(model, code, context)]


def skipped(model, code, context=NO_AUTOCAST):
    """Return the reasons for which a rule was skipped."""
    return [skip.reason for skip in kbitlint.check(model, select=code, context=context).skips]


def adapted(family="llama", **arguments):
    """Return a prepared model with adapters."""
    return tiny.with_lora(tiny.prepared(family, **arguments))


def bare_norms(family="llama", **arguments):
    """Return a frozen model with norms cast to float32 and adapters: the cast that many scripts make by hand."""
    from kbitlint.model.layers.norms import is_norm

    model = tiny.load(family, **arguments)
    model.requires_grad_(False)
    for module in model.modules():
        if is_norm(module):
            module.float()
    return tiny.with_lora(model)


def wrap_layer(model, number, around):
    """Replace the call of one decoder layer by ``around(layer, *args, **kwargs)``."""
    layers = tiny.adapters_base(model).model.layers
    layers[number] = _Around(layers[number], around)


class _Around(torch.nn.Module):
    def __init__(self, layer, around):
        super().__init__()
        self.layer, self.around = layer, around
        self.attention_type = getattr(layer, "attention_type", None)

    def forward(self, *args, **kwargs):
        return self.around(self.layer, *args, **kwargs)
