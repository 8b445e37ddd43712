"""What people write around a Trainer: subclasses with losses, optimizers and steps of their own, and callbacks."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Own:
    """A class of the script's own that a Trainer is or is given."""

    lines: str
    """Its definition. A class ``OwnTrainer`` takes the place of the Trainer."""
    given: str = ""
    """An argument of the Trainer."""
    is_fault: bool = False
    """Whether training fails by it where the model alone does not show it."""


_LOSS = "def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):\n"
_ANSWER = "\n    return (loss, outputs) if return_outputs else loss"
_CROSS_ENTROPY = "torch.nn.functional.cross_entropy({}.float().flatten(0, -2), {}.flatten())"
_USUAL = _CROSS_ENTROPY.format("outputs.logits", 'inputs["labels"]')
_TRAINABLE = '[p for n, p in self.model.named_parameters() if p.requires_grad and "lora_B" {} n]'


def _trainer(method: str, base: str = "Trainer", *, is_fault: bool = False) -> Own:
    return Own(f"class OwnTrainer({base}):\n{textwrap.indent(method, '    ')}", is_fault=is_fault)


def _loss(body: str, base: str = "Trainer", signature: str = _LOSS, *, is_fault: bool = False) -> Own:
    return _trainer(f"{signature}{textwrap.indent(body, '    ')}{_ANSWER}", base, is_fault=is_fault)


def _callback(event: str, body: str, *, is_fault: bool = False) -> Own:
    method = f"def {event}(self, args, state, control, model=None, **further):\n    {body}"
    return Own(f"class OwnCallback(TrainerCallback):\n{textwrap.indent(method, '    ')}", "callbacks=[OwnCallback()]", is_fault)


#: name -> what the script defines
OWN: dict[str, Own] = {
    "own loss": _loss(f"outputs = model(**inputs)\nloss = {_USUAL}"),
    "own loss, old signature": _loss(
        f"outputs = model(**inputs)\nloss = {_USUAL}",
        signature="def compute_loss(self, model, inputs, return_outputs=False):\n",
        is_fault=True,
    ),
    "own loss, labels taken": _loss(
        f'labels = inputs.pop("labels")\noutputs = model(**inputs)\nloss = {_CROSS_ENTROPY.format("outputs.logits", "labels")}'
    ),
    "own loss, detached": _loss(
        f"outputs = model(**inputs)\nloss = {_USUAL.replace('logits', 'logits.detach()')}",
        is_fault=True,
    ),
    "own loss, a number": _loss("outputs = model(**inputs)\nloss = torch.tensor(outputs.loss.item())", is_fault=True),
    "own loss, penalty": _loss(
        "outputs = model(**inputs)\nloss = outputs.loss + 1e-3 * sum(p.norm() for p in model.parameters() if p.requires_grad)"
    ),
    "own loss, two passes": _loss(
        "outputs, again = model(**inputs), model(**inputs)\n"
        "loss = outputs.loss + (outputs.logits.float() - again.logits.float()).square().mean()"
    ),
    "own loss, weights": _loss(
        f"outputs = model(**inputs)\nweight = torch.ones(outputs.logits.shape[-1])\nloss = {_USUAL[:-1]}, weight=weight)"
    ),
    "own loss, beside its base": _loss(
        "with torch.no_grad(), model.disable_adapter():\n    reference = model(**inputs)\noutputs = model(**inputs)\n"
        "loss = outputs.loss + (outputs.logits.float() - reference.logits.float()).square().mean()"
    ),
    "own optimizer": _trainer(
        "def create_optimizer(self, model=None):\n"
        f"    first, second = {_TRAINABLE.format('not in')}, {_TRAINABLE.format('in')}\n"
        '    self.optimizer = torch.optim.AdamW([{"params": first}, {"params": second, "lr": 1e-1}], lr=1e-2)\n'
        "    return self.optimizer"
    ),
    "own step": _trainer(
        "def training_step(self, model, inputs, *further):\n    return super().training_step(model, inputs, *further)"
    ),
    "own step, no backward": _trainer(
        "def training_step(self, model, inputs, *further):\n    model.train()\n"
        "    return self.compute_loss(model, inputs).detach()",
        is_fault=True,
    ),
    "callback": _callback("on_step_end", "print(state.global_step)"),
    "callback that freezes": _callback("on_train_begin", "model.requires_grad_(False)", is_fault=True),
    "callback that casts": _callback("on_train_begin", "model.to(torch.float16)", is_fault=True),
    "callback that evaluates": _callback("on_step_begin", "model.eval()"),
    "sft, own loss": _loss(f"outputs = model(**inputs)\nloss = {_USUAL}", "SFTTrainer"),
    "sft, callback": _callback("on_step_end", "print(state.global_step)"),
}
