from __future__ import annotations

import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.checkpoint import checkpoint

import kbitlint

CODE = "KB305"


class OwnCheckpoint(torch.nn.Module):
    """A layer as remote code writes it: it calls torch's function itself."""

    def __init__(self, layer, *, use_reentrant):
        super().__init__()
        self.inner, self.use_reentrant = layer, use_reentrant
        self.gradient_checkpointing = True

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._modules["inner"], name)

    def forward(self, hidden, **kwargs):
        return checkpoint(lambda x: self.inner(x, **kwargs), hidden, use_reentrant=self.use_reentrant)


def adapted(*, own=None, bound=None, tokens=(5, 6)):
    """LoRA that starts at its invocation tokens, on layers that checkpoint themselves or through transformers."""
    model = tiny.load()
    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        task_type="CAUSAL_LM",
        target_modules=["q_proj"],
        alora_invocation_tokens=None if tokens is None else list(tokens),
        init_lora_weights=False,
    )
    found = get_peft_model(model, config).train()
    if own is not None:
        layers = model.model.layers
        for index in range(len(layers)):
            layers[index] = OwnCheckpoint(layers[index], use_reentrant=own)
        model.enable_input_require_grads()
    if bound is not None:
        tiny.bind_reentrant(model, use_reentrant=bound)
        model.enable_input_require_grads()
    return found


def gradients(model):
    tokens = torch.arange(10, 34).reshape(2, 12)
    tokens[:, 4], tokens[:, 5] = 5, 6
    model(input_ids=tokens, labels=tokens).loss.backward()
    return torch.stack([p.grad.norm() for p in model.parameters() if p.requires_grad])


def found(model):
    return [(v.at.path, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


LAYERS = [("model.layers.0", "error"), ("model.layers.1", "error")]


def test_modules_that_checkpoint_themselves_get_no_gradient_reentrantly():
    model = adapted(own=True)

    assert found(model) == LAYERS
    assert not gradients(model).any()


def test_modules_that_checkpoint_themselves_raise_without_reentry():
    import pytest

    model = adapted(own=False)

    assert found(model) == LAYERS
    with pytest.raises(torch.utils.checkpoint.CheckpointError):
        gradients(model)


def test_layers_of_transformers_are_told_again_and_get_the_right_gradients():
    expected = gradients(adapted())

    for use_reentrant in (False, True):
        model = adapted(bound=use_reentrant)
        assert found(model) == []
        assert torch.allclose(gradients(model), expected, rtol=0.01)


def test_plain_lora_needs_to_be_told_nothing():
    model = adapted(own=True, tokens=None)

    assert found(model) == []
    assert gradients(model).all()


def test_without_adapters_the_rule_is_skipped():
    assert kbitlint.check(tiny.prepared(), select=CODE).skips[0].reason == "no adapters are attached yet"


def test_the_first_of_transformers_own_layers_needs_an_input_that_requires_grad_and_the_fix_gives_it():
    import pytest

    model = adapted()
    model.get_base_model().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.get_base_model().disable_input_require_grads()

    assert found(model) == [LAYERS[0]]
    with pytest.raises(torch.utils.checkpoint.CheckpointError):
        gradients(model)

    fixed = adapted()
    kbitlint.fix(fixed)

    assert found(fixed) == []
    assert gradients(fixed).all()


def test_tasks_of_poly_are_not_known_where_layers_are_computed_again():
    from peft import PolyConfig

    def trained(*, checkpointing):
        model = tiny.load()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        config = PolyConfig(r=4, target_modules=["q_proj"], n_tasks=2, n_skills=2, n_splits=1, task_type="CAUSAL_LM")
        return get_peft_model(model, config)

    def error(model):
        try:
            return tiny.step(model).error
        except ValueError as raised:
            return str(raised)

    assert found(trained(checkpointing=True)) == LAYERS
    assert error(trained(checkpointing=True)) == "task_ids should not be None."
    assert found(trained(checkpointing=False)) == []
    assert error(trained(checkpointing=False)) is None


def test_add_adapter_of_transformers_leaves_the_tokens_unknown():
    model = tiny.load()
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj"], alora_invocation_tokens=[5, 6], init_lora_weights=False)
    model.add_adapter(config)

    assert found(model) == [("", "error")]
    assert not gradients(model.train()).any()
