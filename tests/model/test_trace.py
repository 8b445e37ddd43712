"""The step without weights against the real step: gradients, refused dtypes, bytes, and why something is cut."""

from __future__ import annotations

import contextlib
import random

import pytest
import tiny
import torch

import kbitlint
from kbitlint.context import Checkpointing, TrainingContext
from kbitlint.facts.trace import CheckpointCall, Cut
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.trace.step import UntraceableError
from kbitlint.model.trace.trace import trace

NO_AUTOCAST = TrainingContext(autocast_dtype="float32")


def bare_norms(model):
    from kbitlint.model.layers.norms import is_norm

    model.requires_grad_(False)
    for module in model.modules():
        if is_norm(module):
            module.float()


def peft_prepared(model):
    from peft import prepare_model_for_kbit_training

    return prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})


def reentrant(model):
    kbitlint.fix(model)
    tiny.bind_reentrant(model, use_reentrant=True)


STATES = {
    "as loaded": lambda model: None,
    "fixed": kbitlint.fix,
    "PEFT's prepare": peft_prepared,
    "bare norms": bare_norms,
    "reentrant without hook": reentrant,
}


def made(family, state, kind="nf4"):
    model = tiny.load(family, kind)
    STATES[state](model)
    return tiny.with_lora(model)


def paths(names):
    return {name.removeprefix("base_model.model.") for name in names}


def arrives(traced):
    return {gradient.path for gradient in traced.gradients if gradient.arrives}


def kept(model):
    """Bytes that a real forward keeps for backward: each storage once, without the model's own."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found = {}

    def pack(tensor):
        found.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage())
        return tensor

    model.train()
    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(model(**training_batch(model, "cpu")))
    return sum(storage.nbytes() for address, storage in found.items() if address not in own)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_trace_says_what_the_real_step_does(family, state):
    model = made(family, state)
    traced = trace(model, NO_AUTOCAST)
    real = tiny.step(model)

    about_dtype = real.error is not None and any(word in real.error for word in ("dtype", "scalar type", "bias type"))
    assert (bool(traced.refusals), bool(traced.refusals or traced.failure)) == (about_dtype, real.error is not None)
    if real.error is None:
        assert arrives(traced) == paths(real.arrived)
        assert traced.saved_bytes == pytest.approx(kept(model), rel=0.02)


@pytest.mark.parametrize("family", ["llama", "gpt2 (Conv1D)", "gemma3 (1 + weight)"])
def test_int8_layers_are_stood_in_for_too(family):
    model = made(family, "fixed", "int8")

    assert arrives(trace(model, NO_AUTOCAST)) == paths(tiny.step(model).arrived)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_taken_into_account(dtype):
    model = made("llama", "bare norms")
    name = str(dtype).removeprefix("torch.")
    model.train()
    with torch.autocast("cpu", dtype):
        loss_of(model(**training_batch(model, "cpu"))).backward()
    real = {n.removeprefix("base_model.model.") for n, p in model.named_parameters() if p.grad is not None}

    traced = trace(model, TrainingContext(autocast_dtype=name))

    assert (traced.refusals, traced.failure, arrives(traced)) == ((), None, real)
    assert trace(model, NO_AUTOCAST).refusals


def test_where_autocast_is_not_known_the_step_is_tried_in_it():
    model = made("llama", "bare norms")

    assert [(trace(model, context).absorbed) for context in (TrainingContext(), NO_AUTOCAST)] == [True, False]


def test_a_refused_dtype_is_named_with_its_module_and_both_dtypes():
    traced = trace(made("llama", "bare norms"), NO_AUTOCAST)

    first = traced.refusals[0]
    assert (first.path, first.operator, set(first.dtypes), first.in_backward) == (
        "lm_head",
        "mm",
        {"float32", "bfloat16"},
        False,
    )


def test_cuda_refuses_a_mixed_layer_norm_that_the_cpu_takes():
    model = made("opt", "bare norms")

    said = {device: [r.operator for r in trace(model, NO_AUTOCAST, device=device).refusals] for device in ("cpu", "cuda")}

    assert said["cpu"] == []
    assert set(said["cuda"]) == {"native_layer_norm"}


# -------------------------------------------------------------------------------------- the model is untouched


@pytest.mark.parametrize("family", ["llama", "t5 (encoder-decoder)", "bamba (SSM hybrid)", "mixtral (MoE)"])
def test_the_model_is_untouched_bit_for_bit(family):
    model = made(family, "fixed")
    model.base_model.model.get_input_embeddings().register_forward_hook(lambda module, args, output: output)
    tiny.step(model)
    before = (tiny.state(model), [parameter.grad for parameter in model.parameters()])
    randoms = torch.random.get_rng_state(), random.getstate(), torch.is_grad_enabled(), torch.get_default_dtype()

    trace(model)

    after = (tiny.state(model), [parameter.grad for parameter in model.parameters()])
    assert after[0] == before[0]
    assert all(ours is theirs for ours, theirs in zip(after[1], before[1], strict=True))
    assert torch.equal(torch.random.get_rng_state(), randoms[0])
    assert (random.getstate(), torch.is_grad_enabled(), torch.get_default_dtype()) == randoms[1:]


def test_checkpoint_is_torchs_own_again_after_a_step():
    genuine = torch.utils.checkpoint.checkpoint
    trace(made("llama", "fixed"))

    assert torch.utils.checkpoint.checkpoint is genuine


def test_a_step_is_the_same_each_time():
    model = made("mixtral (MoE)", "fixed")

    assert trace(model) == trace(model)


# ------------------------------------------------------------------------------------------- why it is cut off


class _Wrapped(torch.nn.Module):
    """A layer of the model with something around its call."""

    def __init__(self, layer, around):
        super().__init__()
        self.layer, self.around = layer, around

    def forward(self, *args, **kwargs):
        return self.around(self.layer, *args, **kwargs)


def _without_grad(layer, *args, **kwargs):
    with torch.no_grad():
        return layer(*args, **kwargs)


def _detached(layer, hidden, *args, **kwargs):
    return layer(hidden, *args, **kwargs).detach()


def _constant(layer, hidden, *args, **kwargs):
    return torch.zeros_like(layer(hidden, *args, **kwargs))


def _replaced(layer, hidden, *args, **kwargs):
    layer(hidden, *args, **kwargs)
    return hidden


CUTS = {
    "no_grad": (_without_grad, (Cut.NO_GRAD, "model.layers.1.layer")),
    "detached": (_detached, (Cut.DETACHED, "model.layers.1")),
    "without a graph": (_constant, (Cut.CUT, "model.layers.1")),
    "result thrown away": (_replaced, (Cut.NOT_IN_LOSS, None)),
    "not called": (lambda layer, hidden, *_, **__: hidden, (Cut.NOT_CALLED, "model.layers.1.layer")),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_is_named_with_its_place(name):
    around, (cut, at) = CUTS[name]
    model = made("llama", "as loaded")
    layers = tiny.adapters_base(model).model.layers
    layers[1] = _Wrapped(layers[1], around)
    layers[1].attention_type = "full_attention"

    traced = trace(model, NO_AUTOCAST)
    lost = [gradient for gradient in traced.gradients if not gradient.arrives]

    assert arrives(traced) == paths(tiny.step(model).arrived)
    lost_there = [gradient for gradient in lost if gradient.path.startswith("model.layers.1.")]
    assert {gradient.cut for gradient in lost_there} == {cut}
    assert at is None or {gradient.at for gradient in lost_there} == {at}


def test_a_hook_that_detaches_the_embeddings_is_seen_where_reentrant_layers_need_them():
    model = made("llama", "reentrant without hook")
    embedding = tiny.adapters_base(model).model.embed_tokens
    tiny.adapters_base(model).enable_input_require_grads()
    assert {gradient.cut for gradient in trace(model, NO_AUTOCAST).gradients} == {None}

    embedding.register_forward_hook(lambda module, args, output: output.detach())
    traced = trace(model, NO_AUTOCAST)

    assert {(gradient.cut, gradient.at) for gradient in traced.gradients} == {
        (Cut.REENTRANT, "model.layers.0"),
        (Cut.REENTRANT, "model.layers.1"),
    }
    assert "does not require grad" in tiny.step(model).error


def test_a_base_without_adapters_is_traced_with_scalars_in_their_place():
    model = tiny.prepared()
    open_ = trace(model, NO_AUTOCAST)
    tiny.bind_reentrant(model, use_reentrant=True)
    cut = trace(model, NO_AUTOCAST)

    assert {(g.virtual, g.arrives) for g in open_.gradients} == {(True, True)}
    assert [g.path for g in open_.gradients] == [q.path for q in open_.model.quantized]
    assert {g.cut for g in cut.gradients} == {Cut.REENTRANT}


# ------------------------------------------------------------------------------------------------ checkpoints


def test_every_checkpoint_is_seen_with_what_it_is_told():
    model = made("llama", "fixed")

    assert trace(model).checkpoint_calls == (
        CheckpointCall("model.layers.0", use_reentrant=False, requires_grad=False),
        CheckpointCall("model.layers.1", use_reentrant=False, requires_grad=True),
    )
    tiny.bind_reentrant(model)
    assert [call.use_reentrant for call in trace(model).checkpoint_calls] == [None, None]
    assert [call.cuts for call in trace(model).checkpoint_calls] == [True, True]


def test_a_checkpoint_that_code_calls_by_name_is_seen(tmp_path, monkeypatch):
    (tmp_path / "remote_code.py").write_text(
        "import torch\n"
        "from torch.utils.checkpoint import checkpoint\n"
        "class Layer(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.proj = torch.nn.Linear(4, 4)\n"
        "    def forward(self, inputs):\n"
        "        return checkpoint(self.proj, inputs, use_reentrant=True)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import remote_code

    class Model(torch.nn.Module):
        main_input_name = "input_ids"

        def __init__(self):
            super().__init__()
            self.embed, self.layer = torch.nn.Embedding(8, 4), remote_code.Layer()
            self.embed.weight.requires_grad = False

        def forward(self, input_ids):
            return self.layer(self.embed(input_ids))

    traced = trace(Model())

    assert traced.checkpoint_calls == (CheckpointCall("layer", use_reentrant=True, requires_grad=False),)
    assert {(g.cut, g.at) for g in traced.gradients} == {(Cut.REENTRANT, "layer")}


def test_what_a_loop_does_about_checkpointing_is_part_of_the_step():
    model = made("llama", "as loaded")
    loop = Checkpointing(enabled=True, use_reentrant=False)
    off, on = trace(model), trace(model, TrainingContext(gradient_checkpointing=loop))

    assert (len(off.checkpoint_calls), len(on.checkpoint_calls)) == (0, 2)
    assert on.saved_bytes < off.saved_bytes / 3


# ------------------------------------------------------------------------------------------------ the stream


def test_the_residual_stream_is_followed_along_the_depth():
    streams = {
        state: [(layer.incoming, layer.outgoing) for layer in trace(made("llama", state), NO_AUTOCAST).layers]
        for state in STATES
    }

    assert streams["fixed"] == [("bfloat16", "bfloat16")] * 2
    assert streams["PEFT's prepare"] == [("float32", "float32")] * 2
    norms = trace(
        made("gpt_neox (fused QKV, LayerNorm)", "bare norms"), TrainingContext(autocast_dtype="bfloat16"), device="cuda"
    )
    assert norms.promotions[0].path == "gpt_neox.layers.0.input_layernorm"


# ----------------------------------------------------------------------------------- what cannot be traced


class _Custom(torch.nn.Module):
    """A model around a forward that a test brings."""

    def __init__(self, body):
        super().__init__()
        self.embed, self.proj, self.body = torch.nn.Embedding(8, 4), torch.nn.Linear(4, 4), body

    def forward(self, input_ids):
        return self.body(self, self.embed(input_ids))


def _by_value(model, hidden):
    rows = int((hidden.sum(-1) > 0).sum())
    return model.proj(hidden.reshape(-1, 4)[:rows].reshape(rows + 3, -1))


def _custom_kernel(model, hidden):
    return _only_on_cpu(model.proj(hidden))


@torch.library.custom_op("kbitlint_tests::only_on_cpu", mutates_args=(), device_types="cpu")
def _only_on_cpu(value: torch.Tensor) -> torch.Tensor:
    return value.clone()


@pytest.mark.parametrize(("body", "operator"), [(_by_value, "aten."), (_custom_kernel, "kbitlint_tests.only_on_cpu")])
def test_what_needs_values_or_a_kernel_of_its_own_is_untraceable_and_named(body, operator):
    with pytest.raises(UntraceableError) as raised:
        trace(_Custom(body))

    assert str(raised.value).startswith(f"no training step without weights: {operator}")


def test_an_untraceable_model_is_a_skip_and_every_other_rule_still_runs():
    model = made("llama", "fixed")
    layer = tiny.adapters_base(model).model.layers[1].mlp
    forward = type(layer).forward
    layer.forward = lambda hidden: _only_on_cpu(forward(layer, hidden))

    report = kbitlint.check(model)

    assert report.violations == ()
    (skipped,) = [skip for skip in report.skips if skip.surface.value == "trace"]
    assert skipped.code == ""
    assert skipped.reason.startswith(
        "no training step without weights: kbitlint_tests.only_on_cpu.default in model.layers.1.mlp raised"
    )
    assert {surface.value for _, surface in report.ran} == {"model"}


def test_values_that_nothing_can_know_are_counted():
    def body(model, hidden):
        return model.proj(hidden) if hidden.sum() > 0 else hidden

    assert trace(_Custom(body)).guesses == (("value", 1),)
    assert trace(_Custom(lambda model, hidden: model.proj(hidden))).guesses == ()


def test_integers_that_can_be_computed_are_computed():
    """A branch on token ids is the one that training takes."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.used, self.unused = torch.nn.Embedding(8, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, input_ids):
            hidden = self.embed(input_ids)
            rows = hidden[input_ids >= 0]
            branch = self.used if rows.shape[0] == input_ids.numel() and int(input_ids.max()) < 8 else self.unused
            return branch(rows)

    traced = trace(Model())

    assert arrives(traced) == {"embed.weight", "used.weight", "used.bias"}
    assert {(g.cut, g.at) for g in traced.gradients if not g.arrives} == {(Cut.NOT_CALLED, "unused")}
    assert traced.guesses == ()


def test_a_step_that_autograd_stops_says_why():
    def body(model, hidden):
        model.proj.weight.add_(1)
        return model.proj(hidden)

    traced = trace(_Custom(body))

    assert traced.raises
    assert traced.failure == "RuntimeError: a leaf Variable that requires grad is being used in an in-place operation."


def test_wrappers_around_the_model_are_seen_through():
    model = made("llama", "fixed")
    with contextlib.ExitStack() as stack:
        torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
        stack.callback(torch.distributed.destroy_process_group)
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        traced = trace(wrapped, NO_AUTOCAST)

    assert arrives(traced) == arrives(trace(model, NO_AUTOCAST))


@pytest.mark.parametrize("state", ["nf4", "nf4, prepared", "int8"])
def test_adapters_with_sparse_updates_are_traced_as_they_train(state):
    import peft

    model = tiny.load(kind=state.split(",")[0])
    if "prepared" in state:
        peft_prepared(model)
    model = peft.get_peft_model(model, peft.ShiraConfig(target_modules=["q_proj"], r=4))
    traced = trace(model, NO_AUTOCAST)
    real = tiny.step(model)

    assert bool(traced.refusals) == (real.error is not None)
    assert all(gradient.arrives for gradient in traced.gradients)
