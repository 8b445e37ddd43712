"""A fixed model in the hands of what people train with: autocast, GradScaler, torch.compile, FSDP, saving and loading."""

from __future__ import annotations

import gloo
import pytest
import tiny
import torch
from rank_cases import loss_and_gradients, norm_dtypes

import kbitlint
from kbitlint.model.batch import loss_of, training_batch

FAMILY_SAMPLE = ["llama", "gemma3 (1 + weight)", "gpt_neox (fused QKV, LayerNorm)", "bamba (SSM hybrid)"]


def fixed(family="llama", dtype=torch.bfloat16):
    model = tiny.load(family, dtype=dtype)
    kbitlint.fix(model)
    return tiny.with_lora(model)


@pytest.mark.parametrize("family", FAMILY_SAMPLE)
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
def test_under_autocast(family, autocast):
    model = fixed(family, dtype=autocast)

    loss, gradients = loss_and_gradients(model, autocast=autocast)

    assert loss.isfinite()
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert norm_dtypes(model) == {torch.float32}


@pytest.mark.parametrize("family", ["llama", *(pytest.param(family, marks=pytest.mark.slow) for family in FAMILY_SAMPLE[1:3])])
def test_compiled(family):
    model = fixed(family)
    expected, plain = loss_and_gradients(model)

    loss, gradients = loss_and_gradients(model, run=torch.compile(model, backend="aot_eager"))

    assert torch.allclose(loss, expected, rtol=1e-3)
    assert gradients.keys() == plain.keys()
    near = [torch.nn.functional.cosine_similarity(gradients[n].flatten().float(), plain[n].flatten().float(), 0) for n in plain]
    assert min(near) > 0.98


def test_a_grad_scaler_takes_the_adapters():
    model = tiny.with_lora(tiny.load(dtype=torch.float16), init_lora_weights=True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.half()
    context = kbitlint.TrainingContext(autocast_dtype="float16", grad_scaler=True)
    kbitlint.fix(model, context=context)
    scaler = torch.amp.GradScaler("cpu")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    with torch.autocast("cpu", torch.float16):
        loss = loss_of(model.train()(**training_batch(model, "cpu")))
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)

    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert sum(not torch.equal(p, before[name]) for name, p in model.named_parameters() if name in before) == len(before)


def test_saved_and_loaded(tmp_path):
    import transformers

    model = tiny.load()
    kbitlint.fix(model)
    model.save_pretrained(tmp_path)
    plain = tiny.load()
    plain.save_pretrained(tmp_path / "plain")

    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"})

    assert set(model.state_dict()) == set(plain.state_dict())
    stored = [v for v in kbitlint.check(loaded).violations if v.code == "KB102"]
    # a checkpoint keeps dtypes and no hooks: its float32 norms promote what they pass on, unless transformers 4 casts them
    assert bool(stored) is tiny.TRANSFORMERS_5
    assert tiny.step(tiny.with_lora(loaded)).trains is not tiny.TRANSFORMERS_5
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"}, dtype=torch.bfloat16)
    kbitlint.fix(loaded)
    ids = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.equal(loaded.eval()(ids).logits, model.eval()(ids).logits)
    other = tiny.load()
    kbitlint.fix(other)
    other.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if ".weight." not in name})
    assert norm_dtypes(other) == {torch.float32}


@pytest.mark.usefixtures("preloaded")
@pytest.mark.slow
def test_sharded_over_two_processes():
    for found in gloo.run("fixed_and_sharded"):
        assert found == {"loss": True, "gradients": True, "names": True, "norms": ["torch.float32"]}
