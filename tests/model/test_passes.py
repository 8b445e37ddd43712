"""Loading, evaluation, generation and merging, beside the allocator's record of real ones on the CPU."""

from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from allocations import peak_of, tensors_of

import kbitlint
from kbitlint.context.launch import Launch
from kbitlint.context.passes import passes_of
from kbitlint.memory_result import Phase
from kbitlint.model.memory.passes import PassMeter
from kbitlint.model.memory.phases import BesideSteps
from kbitlint.model.memory.resident import other_models
from kbitlint.model.memory.storing import loading, merging
from kbitlint.model.trace.twin import twin_of
from kbitlint.step_plan import Evaluation, Generation, Passes, StepPlan

CONTEXT = kbitlint.TrainingContext(autocast_dtype="float32", batch_size=2, seq_len=64)
TOKENS = list(range(3, 67))
DATA = [{"input_ids": TOKENS, "labels": TOKENS, "attention_mask": [1] * 64}] * 20


class NoOptimizer:
    """What has no state yet."""

    state = {}  # noqa: RUF012  # read only


def held(model):
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors_of(model, NoOptimizer)
    }
    return sum(storages.values())


def measured(model, passes, between=0):
    (phase,) = PassMeter(twin_of(model), CONTEXT, StepPlan(), between, None, "cpu").measured(passes)
    assert phase.failure == ""
    return phase


def trainer(model, folder, **settings):
    further = {name: settings.pop(name) for name in ("compute_metrics", "preprocess_logits_for_metrics") if name in settings}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], per_device_eval_batch_size=4, disable_tqdm=True, **settings
    )
    return transformers.Trainer(model=model, args=arguments, train_dataset=DATA, eval_dataset=DATA, **further)


@pytest.mark.parametrize("shape", [(4, 16, 32), (8, 32, 64), (4, 4, 110)])
def test_a_generation_takes_what_is_told(shape):
    batch, prompt, completion = shape
    model = tiny.with_lora(tiny.load()).eval()
    ids = torch.randint(3, 250, (batch, prompt))

    def generate():
        length = {"max_new_tokens": completion, "min_new_tokens": completion}
        with torch.no_grad():
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, **length)

    generate()
    told = measured(model, Passes(None, Generation(batch, completion, prompt)))

    assert told.peak == pytest.approx(peak_of(model, generate), rel=0.1)
    assert told.words == f"{batch} x {prompt} + {completion} tokens"
    assert told.peak_at.endswith(", the last token" if prompt == 4 else ", the prompt")


@pytest.mark.parametrize(("every", "on_host"), [(None, 0), (2, 2)])
def test_an_evaluation_takes_what_is_told(every, on_host, tmp_path):
    model = tiny.with_lora(tiny.load(dtype=torch.float32))
    plain = trainer(model, tmp_path)
    keeps = trainer(model, tmp_path, compute_metrics=lambda _: {}, eval_accumulation_steps=every)
    logits = 4 * 64 * tiny.VOCAB * 4
    for one in (plain, keeps):
        one.evaluate()
    bare, kept = (measured(model, Passes(passes_of(one).evaluation)) for one in (plain, keeps))

    assert bare.peak == pytest.approx(peak_of(model, plain.evaluate), rel=0.1)
    # on the CPU, what the host received lies in the same memory
    assert kept.peak + on_host * logits == pytest.approx(peak_of(model, keeps.evaluate), rel=0.1)
    assert (bare.host, kept.host) == (0, 5 * logits)
    assert kept.words == f"4 x 64 tokens, logits of {every or 5} batches kept, " + (
        "eval_accumulation_steps=2" if every else "no eval_accumulation_steps"
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_loading_takes_what_is_told(dtype):
    folder, method = tiny.checkpoint(), tiny.quantization()
    made = []

    def load():
        cls = transformers.AutoModelForCausalLM
        made[:] = [cls.from_pretrained(folder, quantization_config=method, device_map={"": "cpu"}, dtype=dtype)]

    load()
    made.clear()
    real = peak_of(None, load)

    assert loading(made[0], "cpu").peak == pytest.approx(real, rel=0.1)


def test_loading_holds_a_weight_of_the_card_unpacked_while_it_is_packed():
    model = tiny.load(dtype=torch.bfloat16)
    whole = loading(model)
    resident = sum(kbitlint.memory(model, seq_len=32, lora=None).states[0].resident.values())
    largest = 64 * 128 * 2

    assert whole.host == 256 * 64 * 2  # the embeddings
    assert resident < whole.peak < resident + largest
    assert whole.peak_at == "model.layers.1.mlp.up_proj.weight"
    assert whole.words == "packed weight by weight"


def test_a_merge_takes_what_is_told():
    model = tiny.with_lora(tiny.load())
    before = held(model)
    packed, plain = merging(model, "cpu")

    assert packed.peak == pytest.approx(before + peak_of(model, model.merge_and_unload), rel=0.1)
    assert (packed.label, plain.label) == ("merging", "merging, 16 bits")
    assert list(merging(tiny.with_lora(tiny.load(kind="int8")), "cpu")) == []


def test_models_that_a_trainer_holds_beside_its_own_count_once():
    model, reference = tiny.with_lora(tiny.load()), tiny.load()
    alone = held(reference)

    class Live:
        """A Trainer."""

    live = Live()
    live.model, live.ref_model, live.reward_funcs, live.model_wrapped = model, reference, [reference, len], model

    assert other_models(live, model) == pytest.approx(alone, rel=0.01)
    live.ref_model = live.reward_funcs = None
    assert other_models(live, model) == 0


def test_a_trainer_says_what_it_evaluates_and_generates(tmp_path):
    model = tiny.with_lora(tiny.load())
    less = trainer(model, tmp_path, compute_metrics=lambda _: {}, preprocess_logits_for_metrics=lambda logits, _: logits)
    none = trainer(model, tmp_path, compute_metrics=lambda _: {}, prediction_loss_only=True)

    assert passes_of(less).evaluation == Evaluation(4, 0, "what preprocess_logits_for_metrics keeps is not counted")
    assert passes_of(none) == Passes(Evaluation(4), None)

    class Arguments:
        """Those of GRPO."""

        per_device_train_batch_size, steps_per_generation, max_completion_length, use_vllm = 2, 4, 256, False

    class Online:
        """A trainer that generates."""

        args, generation_config = Arguments(), {}

    assert passes_of(Online()) == Passes(None, Generation(8, 256))
    Arguments.use_vllm = True
    assert passes_of(Online()) == Passes()


@pytest.mark.parametrize(
    ("name", "generation", "rows", "teaches"),
    [
        ("GRPOTrainer", Generation(4, 4), 1, False),
        ("OnlineDPOTrainer", Generation(4, 4), 1, False),
        ("DistillationTrainer", Generation(2, 4), 1, True),
        ("DPOTrainer", None, 2, False),
        ("KTOTrainer", None, 1, False),
    ],
)
def test_trainers_of_trl_say_what_they_generate_and_hold(name, generation, rows, teaches, tmp_path):
    from tests.support import trl_trainers

    further = {"steps_per_generation": 2} if name == "GRPOTrainer" else {}
    live = trl_trainers.build(name, tmp_path, **further)
    table = kbitlint.memory(live, seq_len=32)

    assert passes_of(live) == Passes(None, generation)
    assert table.batch[0] == 2 * rows
    assert (table.states[0].resident["other models"] > 0) == teaches
    assert ("generation" in [phase.name for phase in table.states[0].phases]) == (generation is not None)
    assert [phase.failure for phase in table.states[0].phases if phase.failure] == []


def test_the_table_and_the_answer_have_the_parts_beside_the_steps(tmp_path):
    model = tiny.with_lora(tiny.load())
    live = trainer(model, tmp_path, compute_metrics=lambda _: {}, per_device_train_batch_size=1)
    table = kbitlint.memory(live, seq_len=64)
    state = table.states[0]
    text = str(table)

    assert [phase.label for phase in state.phases] == ["loading", "evaluation", "saving", "merging", "merging, 16 bits"]
    assert all(phase.peak > 0 for phase in state.phases)
    assert "peak beside the steps\n  loading " in text
    assert "evaluation: 4 x 64 tokens, logits of 5 batches kept, no eval_accumulation_steps, at" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    roomy = kbitlint.fit(live, gpu="24GB", seq_len=64)
    needs = {phase.name: on_card for phase, on_card in roomy.phases}["evaluation"]
    close = kbitlint.fit(live, gpu=str(needs - 1), seq_len=64)

    assert roomy.fits
    assert (close.room >= 0, close.fits, [phase.name for phase in close.too_large]) == (True, False, ["evaluation"])
    assert "its steps fit, and evaluation does not" in str(close)
    assert "per_device_eval_batch_size=1" in str(close)


def test_a_pass_that_cannot_run_without_weights_is_a_named_gap():
    model = tiny.with_lora(tiny.load())
    phase = next(iter(PassMeter(model, CONTEXT, StepPlan(), 0, None, "cpu").measured(Passes(Evaluation(4)))))
    broken = PassMeter(model, CONTEXT, StepPlan(), 0, None, "cpu")
    broken._evaluation = lambda *_: (_ for _ in ()).throw(kbitlint.model.trace.step.UntraceableError("no pass: why"))
    gap = next(iter(broken.measured(Passes(Evaluation(4)))))

    assert phase.peak > 0
    assert gap == Phase("evaluation", "4 x 64 tokens", None, failure="no pass: why")
    assert BesideSteps(model, model, Launch()).passes == Passes()
