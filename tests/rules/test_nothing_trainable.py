from __future__ import annotations

import pytest
import tiny
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from script_cases import ADAPTED, LOADED, LOOP, PREPARED, RECIPE, TRAINED, findings, fixed_text, flagged_lines

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


def test_only_an_idle_prompt_requires_grad():
    """TRL's DPO keeps such a copy of a prompt as its reference."""
    model = get_peft_model(tiny.prepared(), PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))
    model.add_adapter("ref", PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))
    model.set_adapter("default")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".ref." in name)

    assert found(model) == [("only idle adapters require grad", "safe")]
    assert not tiny.step(model).arrived


def test_an_adapter_may_be_called_like_a_part_of_the_model():
    model = get_peft_model(tiny.prepared(), LoraConfig(r=4, target_modules=["q_proj"]), adapter_name="model")
    model.add_adapter("second", LoraConfig(r=4, target_modules=["q_proj"]))
    model.set_adapter("second")
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    assert found(model) == [("no parameter requires grad", "safe")]
    assert kbitlint.fix(model, select=CODE).violations == ()


# ---------------------------------------------------------------------------------------------------- source


PREPARE = "model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)\n"
LATE = LOADED + ADAPTED + PREPARE + TRAINED
RESUMED = LOADED + PREPARED + "model = PeftModel.from_pretrained(model, 'adapter')\n" + TRAINED


def test_a_preparation_after_the_adapters_freezes_them():
    assert findings("KB202", LATE) == [("error", PREPARE.strip(), "the adapters are frozen, so no parameter requires grad")]


@pytest.mark.parametrize(
    ("between", "training", "flagged"),
    [
        ("model.merge_adapter()\n", TRAINED, True),
        ("model.merge_adapter()\n", LOOP, True),
        ("model.merge_adapter()\nevaluate(model)\nmodel.unmerge_adapter()\n", TRAINED, False),
        ("model.merge_adapter()\n", TRAINED.replace("Trainer", "DPOTrainer", 1), False),
        ("model.merge_adapter()\nchange(model)\n", TRAINED, False),
    ],
)
def test_adapters_that_stay_merged(between, training, flagged):
    message = "the adapters are merged into the weights, so their forward is the base's and no gradient reaches them"
    found = findings("KB202", LOADED + PREPARED + ADAPTED + between + "from trl import DPOTrainer\n" + training)

    assert found == [("error", "model.merge_adapter()", message)] * flagged


@pytest.mark.parametrize(
    ("condition", "flagged"),
    [
        ("'lora_' in name", True),
        ("'layers' in name", True),
        ("'layers.0.' in name", False),
        ("'lora_' in name and old(p)", False),
    ],
)
def test_adapters_that_a_loop_freezes_by_name(condition, flagged):
    freeze = f"for name, p in model.named_parameters():\n    if {condition}:\n        p.requires_grad = False\n"
    named = LOADED.replace("org/base", "meta-llama/Llama-3.2-1B")
    found = flagged_lines("KB202", named + PREPARED + ADAPTED + freeze + TRAINED)

    assert found == [("error", "p.requires_grad = False")] * flagged


def test_a_saved_adapter_loads_frozen():
    assert flagged_lines("KB202", RESUMED) == [("error", "model = PeftModel.from_pretrained(model, 'adapter')")]


def test_an_adapter_loaded_where_one_may_be_is_frozen_too():
    load = "model = PeftModel.from_pretrained(model, 'adapter')"
    script = LOADED + PREPARED + f"try:\n    {load}\nexcept OSError:\n    {ADAPTED}" + TRAINED

    assert flagged_lines("KB202", script) == [("error", load)]
    assert findings("KB202", script.replace("'adapter'", "'adapter', is_trainable=True")) == []


def test_an_adapter_that_is_added_and_not_set_is_idle():
    script = RESUMED.replace(TRAINED, "model.add_adapter('new', LoraConfig())\n" + TRAINED)

    assert flagged_lines("KB202", script) == [("error", "model = PeftModel.from_pretrained(model, 'adapter')")]
    assert findings("KB202", script.replace(TRAINED, "model.set_adapter('new')\n" + TRAINED)) == []


def test_a_saved_config_attaches_frozen_adapters():
    attach = "model = get_peft_model(model, config)\n"
    script = LOADED + "config = PeftConfig.from_pretrained('adapter')\n" + attach + TRAINED

    assert flagged_lines("KB202", script) == [("warning", attach.strip())]
    assert findings("KB202", script.replace(attach, "config.inference_mode = False\n" + attach)) == []


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(RECIPE, id="prepared first"),
        pytest.param(
            "def build(adapter=None):\n    model = load()\n"
            "    if adapter:\n        return PeftModel.from_pretrained(model, adapter)\n"
            "    return get_peft_model(model, LoraConfig())\n"
            "model = build()\n" + TRAINED + "again = build('adapter').eval()\n",
            id="loaded by another call of the function",
        ),
        pytest.param(
            RECIPE.replace("LoraConfig(", "LoraConfig(bias='all', ").replace(
                TRAINED, "model.base_model.disable_adapter_layers()\n" + TRAINED
            ),
            id="biases of the base train beside adapters that are off",
        ),
        pytest.param(RESUMED.replace("'adapter'", "'adapter', is_trainable=True"), id="loaded to be trained"),
        pytest.param(RESUMED.replace("'adapter'", "'adapter', is_trainable=flag"), id="perhaps loaded to be trained"),
        pytest.param(RESUMED.replace("'adapter'", "'adapter', config=config"), id="the config may say so"),
        pytest.param(RESUMED.replace(TRAINED, "model.eval()\n"), id="loaded for inference"),
        pytest.param(RESUMED.replace(".train()", ".evaluate()"), id="evaluated only"),
        pytest.param(LATE.replace(TRAINED, "if thaw:\n    unfreeze(model)\n" + TRAINED), id="unfrozen on a path"),
        pytest.param(
            LATE.replace(
                TRAINED, "if thaw:\n    for p in lora(model):\n        pass\n    model.requires_grad_(True)\n" + TRAINED
            ),
            id="unfrozen on a path that is followed",
        ),
        pytest.param(RESUMED.replace(TRAINED, "model.set_adapter('default')\n" + TRAINED), id="a method that unfreezes"),
        pytest.param(LATE.replace(TRAINED, "unfreeze(model)\n" + TRAINED), id="something unknown had the model"),
        pytest.param(
            LATE.replace(
                TRAINED,
                "for n, p in model.named_parameters():\n    if 'lora' in n:\n        p.requires_grad = True\n" + TRAINED,
            ),
            id="unfrozen by hand",
        ),
        pytest.param(
            LOADED + ADAPTED + "if late:\n    unfreeze()\nelse:\n    " + PREPARE + "    thaw(model)\n" + TRAINED, id="thawed"
        ),
        pytest.param(LOADED + "model = get_peft_model(model, LoraConfig(inference_mode=flag))\n" + TRAINED, id="unknown mode"),
        pytest.param(
            RESUMED.replace(TRAINED, "model.load_adapter('b', adapter_name='b', is_trainable=True)\n" + TRAINED), id="a second"
        ),
    ],
)
def test_source_look_alikes(script):
    assert findings("KB202", script) == []


def test_a_model_of_peft_that_is_constructed_has_adapters():
    construct = "model = PeftModel(model, LoraConfig(r=8))\n"

    assert findings("KB202", LOADED + construct + PREPARE + TRAINED) == [
        ("error", PREPARE.strip(), "the adapters are frozen, so no parameter requires grad")
    ]
    assert findings("KB202", LOADED + PREPARE + construct + TRAINED) == []


def test_the_source_fix_moves_the_preparation(tmp_path):
    assert fixed_text("KB202", LATE, tmp_path, unsafe=False) == LOADED + PREPARE + ADAPTED + TRAINED


@pytest.mark.parametrize(
    "late",
    [
        LATE.replace(PREPARE, "model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=flag)\n"),
        LATE.replace(PREPARE, "other = prepare_model_for_kbit_training(model)\n"),
        LATE.replace(PREPARE, "if True:\n    " + PREPARE),
        LATE.replace(PREPARE, PREPARE.replace("\n", "; x = 1\n")),
    ],
)
def test_what_cannot_be_moved_surely_is_shown_only(late, tmp_path):
    assert fixed_text("KB202", late, tmp_path) == late


def test_the_source_fix_loads_the_adapter_to_be_trained(tmp_path):
    assert fixed_text("KB202", RESUMED, tmp_path, unsafe=False) == RESUMED.replace("'adapter'", "'adapter', is_trainable=True")


def test_the_source_fix_leaves_inference_mode_off(tmp_path):
    script = LOADED + "model = get_peft_model(model, LoraConfig(inference_mode=True))\n" + TRAINED

    assert fixed_text("KB202", script, tmp_path) == script.replace("inference_mode=True", "inference_mode=False")


def test_an_adapter_config_says_that_it_loads_frozen(tmp_path):
    from kbitlint.api import check

    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "inference_mode": true}')
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')

    found = check(str(tmp_path / "adapter_config.json"), select="KB202").violations
    other = check(str(tmp_path / "config.json"), select="KB202")

    assert [(v.severity.value, str(v.at)) for v in found] == [("info", "adapter_config.json inference_mode")]
    assert (other.violations, [skip.reason for skip in other.skips]) == ((), ["no adapter_config.json here"])


def test_an_adapter_config_that_was_set_to_train(tmp_path):
    from kbitlint.api import check

    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "inference_mode": false}')

    assert check(str(tmp_path / "adapter_config.json"), select="KB202").violations == ()


@pytest.mark.parametrize(
    ("body", "flagged"),
    [
        pytest.param(LOADED + PREPARED, 1, id="prepared, no adapters"),
        pytest.param(LOADED + PREPARED + ADAPTED + "model = model.merge_and_unload()\n", 1, id="merged"),
        pytest.param(LOADED + PREPARED + ADAPTED + "model = model.unload()\n", 1, id="unloaded"),
        pytest.param(LOADED + PREPARED + ADAPTED, 0, id="adapted"),
        pytest.param(
            LOADED + PREPARED + ADAPTED.replace("r=8", "r=8, modules_to_save=['lm_head']") + "model = model.unload()\n",
            0,
            id="the copy of the head goes on to train",
        ),
        pytest.param(
            (LOADED + PREPARED + ADAPTED).replace("ForCausalLM", "ForSequenceClassification") + "model = model.unload()\n",
            0,
            id="the copy of a classifier's head goes on to train",
        ),
        pytest.param(LOADED, 0, id="norms and embeddings train"),
        pytest.param(LOADED + PREPARED + "model.lm_head.weight.requires_grad_(True)\n", 0, id="the head trains"),
        pytest.param(LOADED + PREPARED + "model = wrap(model)\n", 0, id="an unknown function"),
    ],
)
def test_a_loop_that_trains_a_frozen_base_without_adapters(body, flagged):
    assert findings("KB202", body + LOOP) == flagged * [
        ("error", "loss.backward()", "the base is frozen and has no adapters, so no parameter requires grad")
    ]


MODULE = """
import lightning.pytorch as pl

class Continued(pl.LightningModule):
    def __init__(self, folder):
        super().__init__()
        base = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
        self.model = PeftModel.from_pretrained(base, folder)

    def training_step(self, batch, number):
        return self.model(**batch).loss

bnb = BitsAndBytesConfig(load_in_4bit=True)
"""


@pytest.mark.parametrize(
    ("returned", "loaded", "found"),
    [
        ("self.model(**batch).loss", "folder)", ["error"]),
        ("{'loss': self.model(**batch).loss}", "folder)", ["error"]),
        ("self.model(**batch).loss", "folder, is_trainable=True)", []),
        ("None", "folder)", []),
    ],
)
def test_lightning_trains_what_a_training_step_returns(returned, loaded, found):
    script = MODULE.replace("self.model(**batch).loss", returned).replace("folder)\n\n", f"{loaded}\n\n")
    fit = "module = Continued('first')\npl.Trainer(max_steps=10).fit(module, data)\n"

    assert [severity for severity, *_ in findings("KB202", script + fit)] == found


def test_a_loop_over_models_and_an_encoder_beside_the_one_that_trains():
    script = """
from transformers import AutoModel
encoder = AutoModel.from_pretrained("org/encoder")
for one in (encoder, model):
    one.requires_grad_(False)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
for batch in loader:
    loss = torch.nn.functional.mse_loss(model(batch, encoder(batch)[0]).logits.float(), target(batch))
    loss.backward()
    optimizer.step()
"""
    assert flagged_lines("KB202", LOADED + PREPARED + ADAPTED + script) == [("error", "one.requires_grad_(False)")]
    apart = script.replace("(encoder, model)", "(encoder, other)")
    assert flagged_lines("KB202", LOADED + PREPARED + ADAPTED + apart) == []


@pytest.mark.parametrize(("config", "flagged"), [("LoraConfig(r=8)", 1), ("MissConfig(r=8)", 0), ("IA3Config()", 0)])
def test_saved_adapters_that_stay_trainable_when_they_are_loaded_to_infer(config, flagged):
    """PEFT 0.21 casts parameters of a ``ParameterDict`` from bfloat16 to new ones, which require grad."""
    attach = ADAPTED.replace(ADAPTED[ADAPTED.index("LoraConfig(") : ADAPTED.rindex(")")], config)
    again = "model.save_pretrained('a')\nmodel = PeftModel.from_pretrained(model.unload(), 'a')\n"

    script = "from peft import IA3Config, MissConfig, PeftModel\n" + LOADED + PREPARED + attach + again + LOOP
    assert len(findings("KB202", script)) == flagged
