"""The step on a Trainer's own loss, beside what its training does."""

from __future__ import annotations

import datasets
import peft
import pytest
import tiny
import torch
import transformers

import kbitlint

trl_trainers = pytest.importorskip("trl_trainers", reason="TRL is not installed")

RAISES, NOTHING, TRAINS = "raises", "trains nothing", "trains"
TOKENS = [list(range(2, 12))] * 4


class Loss(transformers.Trainer):
    """A Trainer whose loss is given, with records that it writes."""

    def __init__(self, own, **arguments):
        super().__init__(**arguments)
        self.own, self.seen, self.calls = own, {"losses": []}, 0

    def compute_loss(self, model, inputs, return_outputs=False, **_):  # noqa: FBT002  # the signature of transformers
        self.calls += 1
        outputs = model(**inputs)
        loss = self.own(outputs, inputs["labels"])
        self.seen["losses"].append(loss)
        self.log({"own": 1.0})
        return (loss, outputs) if return_outputs else loss


class Older(transformers.Trainer):
    """A Trainer with the signature of transformers 4.45."""

    def compute_loss(self, model, inputs, return_outputs=False):  # noqa: ARG002, FBT002  # the signature of that version
        return model(**inputs)[0]


def lora(**further):
    return peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **further)


def trainer_of(folder, own=None, *, cls=Loss, family="llama", adapters=None, **settings):
    model = peft.prepare_model_for_kbit_training(tiny.load(family), gradient_checkpointing_kwargs={"use_reentrant": False})
    data = datasets.Dataset.from_dict({"input_ids": TOKENS, "labels": TOKENS})
    options = {"max_steps": 1, "per_device_train_batch_size": 2, "save_strategy": "no", "learning_rate": 0.1, "report_to": []}
    arguments = {
        "model": peft.get_peft_model(model, adapters or lora()),
        "args": transformers.TrainingArguments(str(folder), use_cpu=True, **options, **settings),
        "train_dataset": data,
    }
    return cls(own, **arguments) if cls is Loss else cls(**arguments)


def outcome(trainer):
    """Return what a real training does."""
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    try:
        trainer.train()
    except Exception:  # noqa: BLE001  # any error is the result
        return RAISES
    return NOTHING if all(map(torch.equal, trained, before)) else TRAINS


def errors(trainer):
    report = kbitlint.check(trainer)
    assert report.crashes == ()
    return {v.code for v in report.violations if v.severity.value == "error"}


def cross_entropy(outputs, labels):
    return torch.nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())


LOSSES = {
    "of its own": (cross_entropy, TRAINS, set()),
    "of the model, and printed": (lambda outputs, _: print(outputs.loss) or outputs.loss, TRAINS, set()),  # noqa: T201
    "detached": (lambda outputs, _: outputs.loss.detach(), RAISES, {"KB303"}),
    "as a number": (lambda outputs, _: outputs.loss.item(), RAISES, {"KB304"}),
    "made anew": (lambda outputs, _: torch.tensor(outputs.loss.item(), requires_grad=True), NOTHING, {"KB303"}),
    "of the best tokens": (
        lambda outputs, labels: (outputs.logits.argmax(-1) != labels).float().mean(),
        RAISES,
        {"KB303"},
    ),
    "times zero": (lambda outputs, _: outputs.loss * 0, NOTHING, {"KB315"}),
    "of an output that is not there": (lambda outputs, _: outputs.log_probs.mean(), RAISES, {"KB304"}),
    "of rows that do not fit": (
        lambda outputs, labels: torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels[:, 1:].flatten()),
        RAISES,
        {"KB304"},
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_the_users_is_judged_as_it_trains(tmp_path, name):
    own, real, codes = LOSSES[name]
    trainer = trainer_of(tmp_path, own)
    state = vars(trainer.state).copy()

    assert errors(trainer) == codes
    assert (trainer.seen, trainer.calls, vars(trainer.state)) == ({"losses": []}, 0, state)
    assert outcome(trainer) == real


def test_a_signature_that_transformers_no_longer_calls_is_an_error(tmp_path):
    trainer = trainer_of(tmp_path, cls=Older)

    (told,) = kbitlint.check(trainer, select="KB304").violations
    assert "unexpected keyword argument 'num_items_in_batch'" in told.message
    assert outcome(trainer) == RAISES


def test_label_smoothing_takes_the_labels_that_a_decoder_is_made_of(tmp_path):
    adapters = peft.LoraConfig(r=4, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    trainer = trainer_of(
        tmp_path, cls=transformers.Trainer, family="t5 (encoder-decoder)", adapters=adapters, label_smoothing_factor=0.1
    )

    assert errors(trainer) == {"KB304"}
    assert outcome(trainer) == RAISES
    assert errors(trainer_of(tmp_path, cls=transformers.Trainer, family="t5 (encoder-decoder)", adapters=adapters)) == set()


ADAPTED = {
    "one adapter": (lambda _: None, TRAINS),
    "two, both active": (lambda model: model.base_model.set_adapter(["default", "second"]), RAISES),
    "two, one active": (lambda model: model.set_adapter("default"), TRAINS),
    "one factor frozen": (
        lambda model: [p.requires_grad_(requires_grad=False) for n, p in model.named_parameters() if "lora_A" in n],
        RAISES,
    ),
}


@pytest.mark.parametrize("state", ADAPTED)
def test_a_reference_pass_that_switches_adapters_is_part_of_the_step(tmp_path, state):
    """TRL's DPOTrainer switches to the adapter "ref" between the forward and the backward pass, and back."""
    change, real = ADAPTED[state]
    base = peft.prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs={"use_reentrant": False})
    model = peft.get_peft_model(base, lora())
    if "two" in state:
        model.add_adapter("second", lora())
    change(model)
    trainer = trl_trainers.build("DPOTrainer", tmp_path, model=model, peft_config=None, adapted=True)

    assert errors(trainer) == (set() if real is TRAINS else {"KB304"})
    assert outcome(trainer) == real


class Weighted(transformers.Trainer):
    """A Trainer whose loss reads the count that a running training sets, as TRL's does for routers."""

    def compute_loss(self, model, inputs, return_outputs=False, **_):  # noqa: ARG002, FBT002  # the signature of transformers
        return model(**inputs).loss / self.current_gradient_accumulation_steps


def test_the_loss_reads_what_a_running_training_sets(tmp_path):
    trainer = trainer_of(tmp_path, cls=Weighted)

    assert errors(trainer) == set()
    assert outcome(trainer) == TRAINS


@pytest.mark.parametrize(("keeps", "expected"), [(True, (set(), TRAINS)), (False, ({"KB304"}, RAISES))])
def test_a_forward_that_names_no_argument_loses_every_column_of_a_trainer(tmp_path, keeps, expected):
    trainer = trainer_of(tmp_path, cls=transformers.Trainer, remove_unused_columns=not keeps)
    base = trainer.model.get_base_model()
    original = base.forward
    base.forward = lambda *arguments, **options: original(*arguments, **options)  # noqa: PLW0108  # its signature is the case

    assert (errors(trainer), outcome(trainer)) == expected
