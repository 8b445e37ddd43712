from __future__ import annotations

import tiny
from peft import LoraConfig, PeftModel, get_peft_model

import kbitlint

CODE = "KB202"


def test_an_adapter_loaded_for_inference_is_flagged_and_unfrozen(tmp_path):
    tiny.with_lora(tiny.load()).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(tiny.load(), tmp_path)

    (violation,) = kbitlint.check(model, select=CODE).violations

    assert (violation.at.path, violation.evidence) == (
        "",
        {
            "adapter_parameters": 28,
            "bypassed": None,
            "inference_mode": ["default"],
        },
    )
    assert kbitlint.fix(model, select=CODE).violations == ()
    assert tiny.step(model).trains


def test_a_trainable_adapter_is_not_flagged():
    assert kbitlint.check(tiny.with_lora(tiny.load()), select=CODE).violations == ()


def test_without_adapters_the_rule_is_skipped():
    report = kbitlint.check(tiny.load(), select=CODE)

    assert [(skip.code, skip.reason) for skip in report.skips] == [(CODE, "no adapters are attached yet")]


def test_only_active_adapters_are_unfrozen():
    model = tiny.with_lora(tiny.load())
    model.add_adapter("second", LoraConfig(r=4, target_modules=["q_proj"]))
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    kbitlint.fix(model, select=CODE)

    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable
    assert not [name for name in trainable if ".second." in name]


def test_an_adapter_without_parameters_of_its_own_cannot_be_fixed():
    model = get_peft_model(tiny.prepared(), LoraConfig(r=4, target_modules=["q_proj"]))
    model.base_model.delete_adapter("default")
    model.base_model.model.peft_config = {"default": LoraConfig(r=4)}
    model.peft_config["default"] = LoraConfig(r=4)

    (violation,) = kbitlint.check(model, select=CODE).violations

    assert (violation.fix.safety.value, violation.fix.edits) == ("display", ())


def found(model):
    return [(v.message, v.fix.safety.value) for v in kbitlint.check(model, select=CODE).violations]


def test_disabled_adapters_train_nothing_although_they_require_grad():
    model = tiny.with_lora(tiny.prepared())
    model.base_model.disable_adapter_layers()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)

    assert found(model) == [("only disabled adapters require grad", "display")]
    assert tiny.step(model).error is not None


def test_merged_adapters_train_nothing():
    model = tiny.with_lora(tiny.prepared(), init_lora_weights=True)
    model.merge_adapter()

    assert found(model) == [("only merged adapters require grad", "display")]
    assert tiny.step(model).error is not None


def test_only_an_idle_adapter_requires_grad():
    model = tiny.with_lora(tiny.prepared())
    model.add_adapter("second", LoraConfig(r=4, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".second." in name)

    assert found(model) == [("only idle adapters require grad", "safe")]
    assert tiny.step(model).error is not None
    assert kbitlint.fix(model, select=CODE).violations == ()
    assert tiny.step(model).arrived


def test_an_adapter_may_be_called_like_a_part_of_the_model():
    model = get_peft_model(tiny.prepared(), LoraConfig(r=4, target_modules=["q_proj"]), adapter_name="model")
    model.add_adapter("second", LoraConfig(r=4, target_modules=["q_proj"]))
    model.set_adapter("second")
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    assert found(model) == [("no parameter requires grad", "safe")]
    assert kbitlint.fix(model, select=CODE).violations == ()
