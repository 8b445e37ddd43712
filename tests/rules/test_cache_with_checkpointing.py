from __future__ import annotations

import tiny
import torch

import kbitlint

CODE = "KB404"


class _OwnCheckpoint(torch.nn.Module):
    gradient_checkpointing = True

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False)


def found(model):
    return [(v.at.path, v.severity.value, v.message) for v in kbitlint.check(model, select=CODE).violations]


def with_cache(family="llama"):
    model = tiny.prepared(family)
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = True
    return model


def test_transformers_own_layers_drop_the_cache_so_it_is_worth_knowing_only():
    assert found(with_cache()) == [("config", "info", "use_cache is on while layers checkpoint, which drop the cache and warn")]
    assert tiny.step(tiny.with_lora(with_cache())).trains


def test_a_models_own_checkpointing_is_not_known_to_drop_it():
    model = with_cache()
    model.model.extra = _OwnCheckpoint()

    assert found(model) == [("config", "warning", "use_cache is on while layers checkpoint")]


def test_the_cache_of_a_sub_config_counts():
    assert "config.text_config" in [path for path, _, _ in found(with_cache("llava (vision-language)"))]


def test_without_checkpointing_the_cache_may_stay():
    model = with_cache()
    model.gradient_checkpointing_disable()

    assert found(model) == []


def test_the_fix_switches_it_off():
    model = with_cache()

    kbitlint.fix(model, select=CODE)

    assert (found(model), model.config.use_cache) == ([], False)


def prefix_tuned():
    from peft import PrefixTuningConfig, get_peft_model

    base = tiny.load()
    base.__dict__.pop("hf_device_map", None)  # with transformers 4, PEFT looks there for a device that is no CPU
    return get_peft_model(base, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))


def test_an_adapter_that_works_through_the_cache_fails_when_layers_checkpoint():
    model = prefix_tuned()
    assert tiny.step(model).trains
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})

    message = "an adapter hands its keys and values to the layers through the cache, which they drop when they checkpoint"
    assert found(model) == [("", "error", message)]
    assert tiny.step(model).error is not None


def test_a_prefix_tuned_model_is_not_told_to_checkpoint():
    model = prefix_tuned()

    report = kbitlint.fix(model)

    assert ("KB402", "an adapter works through the cache, which checkpointing drops") in [
        (skip.code, skip.reason) for skip in report.skips
    ]
    assert tiny.step(model).trains
