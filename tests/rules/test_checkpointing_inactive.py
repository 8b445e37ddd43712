from __future__ import annotations

import plants
import pytest
import tiny
from script_cases import ADAPTED, LOADED, LOOP, PREPARED, TRAINED, findings, fixed_text

import kbitlint
from kbitlint.context import TrainingContext

CODE = "KB403"


def found(model, **options):
    return [(v.at.path, v.severity.value) for v in kbitlint.check(model, select=CODE, **options).violations]


def both(severity):
    return [(layer, severity) for layer in plants.LAYERS]


def enabled():
    model = tiny.load()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def calls_of_checkpoint(model):
    """How often the layers checkpoint in one real step, in the mode the model is in."""
    count = []
    layer = tiny.adapters_base(model).model.layers[0]
    original = layer._gradient_checkpointing_func
    layer._gradient_checkpointing_func = lambda *args, **kwargs: (count.append(1), original(*args, **kwargs))[1]
    tiny.step(model, train=False)
    layer._gradient_checkpointing_func = original
    return len(count)


def test_the_mode_that_loading_leaves_is_worth_knowing():
    model = tiny.with_lora(enabled())

    assert model.training  # PeftModel's own mode says nothing
    assert (found(model), calls_of_checkpoint(model)) == (both("info"), 0)


def test_a_whole_model_put_into_eval_mode_is_a_warning():
    model = tiny.with_lora(enabled()).eval()

    assert (found(model), calls_of_checkpoint(model)) == (both("warning"), 0)


def test_some_layers_in_eval_mode_are_a_warning():
    model = tiny.with_lora(enabled())
    model.train()
    tiny.adapters_base(model).model.layers[1].eval()

    assert found(model) == [("model.layers.1", "warning")]


def test_layers_in_training_mode_checkpoint():
    model = tiny.with_lora(enabled())
    model.train()

    assert (found(model), calls_of_checkpoint(model)) == ([], 1)


def test_without_checkpointing_the_mode_does_not_matter():
    assert found(tiny.with_lora(tiny.load()).eval()) == []


def test_a_loop_that_sets_the_mode_itself_is_believed():
    report = kbitlint.check(tiny.with_lora(enabled()), select=CODE, context=TrainingContext(sets_training_mode=True))

    assert ([skip.reason for skip in report.skips], report.violations) == (["the training loop sets the mode itself"], ())


def test_the_fix_sets_the_mode_of_the_whole_model():
    model = tiny.with_lora(enabled())

    kbitlint.fix(model, select=CODE)

    assert all(module.training for module in model.modules())


def test_modules_that_peft_copies_in_eval_mode_say_nothing():
    model = tiny.with_lora(enabled(), modules_to_save=["lm_head"])

    assert found(model) == both("info")


# ---------------------------------------------------------------------------------------------------- source


ASLEEP = LOADED + PREPARED + ADAPTED + LOOP


def test_a_loop_that_never_calls_train():
    assert findings("KB403", ASLEEP) == [
        ("warning", "loss.backward()", "checkpointing is enabled but inactive: nothing calls model.train() before the loop")
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(ASLEEP.replace("optimizer =", "model.train()\noptimizer ="), id="awake"),
        pytest.param(ASLEEP.replace("    loss =", "    model.train()\n    loss ="), id="awake in the loop"),
        pytest.param(LOADED + PREPARED + ADAPTED + TRAINED, id="Trainer wakes it"),
        pytest.param(LOADED + ADAPTED + LOOP, id="no checkpointing"),
        pytest.param(ASLEEP.replace("optimizer =", "start(model)\noptimizer ="), id="something unknown had the model"),
        pytest.param(LOADED + PREPARED + ADAPTED + "model(**batch).loss.backward()\n", id="no loop"),
    ],
)
def test_source_look_alikes(script):
    assert findings("KB403", script) == []


def test_the_source_fix_wakes_it_before_the_loop(tmp_path):
    assert fixed_text("KB403", ASLEEP, tmp_path, unsafe=False) == ASLEEP.replace("for batch", "model.train()\nfor batch")


def test_a_loop_inside_a_function(tmp_path):
    body = "def main():\n" + "".join(f"    {line}\n" for line in ASLEEP.splitlines()) + "main()\n"

    assert fixed_text("KB403", body, tmp_path) == body.replace("    for batch", "    model.train()\n    for batch")


def test_a_model_without_a_name_is_shown_only(tmp_path):
    script = (
        LOADED + PREPARED + ADAPTED + "held = [model]\ndel model\nfor batch in loader:\n    held[0](**batch).loss.backward()\n"
    )

    assert len(findings("KB403", script)) == 1
    assert fixed_text("KB403", script, tmp_path) == script


ROUNDS = (
    LOADED
    + PREPARED
    + ADAPTED
    + """\
optimizer = torch.optim.AdamW(model.parameters())
model.train()
for epoch in range(3):
    for batch in loader:
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()
    validate(model)
"""
)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(ROUNDS, id="in the loop"),
        pytest.param(
            ROUNDS.replace("    model.eval()\n    validate(model)", "    validate()").replace(
                "model.train()", "def validate():\n    model.eval()\nmodel.train()"
            ),
            id="in a function of the file",
        ),
        pytest.param(ROUNDS.replace("range(3)", "range(epochs)"), id="unknown rounds"),
        pytest.param(ROUNDS.replace("for epoch in range(3)", "while going()"), id="a while loop"),
    ],
)
def test_the_second_round_of_a_loop_finds_the_model_asleep(script):
    assert findings(CODE, script.replace("validate(model)", "evaluate(model)")) == [
        (
            "warning",
            "model.eval()",
            "checkpointing is inactive from the second round on: nothing calls model.train() after this",
        )
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(ROUNDS.replace("    for batch", "    model.train()\n    for batch"), id="woken in each round"),
        pytest.param(ROUNDS.replace("validate(model)", "model.train()"), id="woken after"),
        pytest.param(ROUNDS.replace("range(3)", "range(1)"), id="one round"),
        pytest.param(ROUNDS.replace("model.eval()", "if last(epoch): model.eval()"), id="on one path only"),
        pytest.param(ROUNDS.replace("validate(model)", "break"), id="the loop is left"),
        pytest.param(ROUNDS.replace(PREPARED, ""), id="no checkpointing"),
    ],
)
def test_rounds_that_look_alike(script):
    assert findings(CODE, script.replace("validate(model)", "evaluate(model)")) == []


LIGHTNING = """\
import lightning as L

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        bnb = BitsAndBytesConfig(load_in_4bit=True)
        base = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
        self.net = get_peft_model(prepare_model_for_kbit_training(base), LoraConfig(r=8))

    def training_step(self, batch, _):
        return self.net(**batch).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.net.parameters())

L.Trainer(max_steps=9).fit(Net(), loader)
"""


def test_lightning_keeps_the_mode_that_loading_leaves():
    step = "return self.net(**batch).loss"
    assert [(severity, line) for severity, line, _ in findings(CODE, LIGHTNING)] == [("warning", step)]
    hook = "    def on_fit_start(self):\n        self.net.train()\n\n    def training_step"
    assert findings(CODE, LIGHTNING.replace("    def training_step", hook)) == []
    assert findings(CODE, LIGHTNING.replace("(base)", "(base, use_gradient_checkpointing=False)")) == []
