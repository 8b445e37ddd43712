"""A fixed sample of the evaluation: real training of tiny architectures against what kbitlint says without weights.

``benchmarks/truth/real_steps.py`` and ``benchmarks/truth/verdicts.py`` run all of them.
"""

from __future__ import annotations

import pytest
import tiny

SAMPLE = [
    ("causal-lm", "mamba2"),
    ("seq2seq", "t5"),
    ("sequence-classification", "bert"),
    *(
        pytest.param(task, model_type, marks=pytest.mark.slow)
        for task, model_type in (
            ("causal-lm", "gpt_oss"),
            ("causal-lm", "deepseek_v32"),
            ("causal-lm", "longcat_flash"),
            ("image-text-to-text", "qwen2_vl"),
            ("ctc", "wav2vec2"),
            ("pre-training", "visual_bert"),
        )
    ),
]


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the evaluation is of the architectures of transformers 5")
@pytest.mark.parametrize(("task", "model_type"), SAMPLE)
def test_kbitlint_says_without_weights_what_real_training_does(task, model_type, tmp_path):
    from benchmarks.truth import real_steps, verdicts

    real_steps.run_model(task, model_type, list(real_steps.PREPARATIONS), tmp_path / "real.jsonl")
    real = {key: line for key, line in real_steps.results(tmp_path / "real.jsonl").items() if key[2] != real_steps.BUILD}
    verdicts.run_model(task, model_type, [name for _, _, name in real], tmp_path / "said.jsonl")
    said = real_steps.results(tmp_path / "said.jsonl")

    assert len(real) >= 5
    assert {key for key in real if not verdicts.agrees(real[key], said[key])} == set()
    assert verdicts.false_alarms(real, said) == []
    assert verdicts.missed(real, said) == []


def test_a_layer_without_values_agrees_with_the_trace_that_names_the_module_which_calls_it():
    from benchmarks.truth import verdicts

    error = {"message": "Tensor on device meta is not on the expected device cpu!", "module": "task_mlp.layers.0"}
    real, said = {"outcome": "error", "error": error}, {"verdict": "other", "message": "", "hollow": ["task_mlp.layers.0"]}

    assert verdicts.agrees(real, said)
    assert not verdicts.agrees(real, said | {"hollow": ["task_mlp.layers.1"]})
    assert not verdicts.agrees({"outcome": "error", "error": error | {"message": "another one"}}, said)


#: architectures whose own code mixes float32 with what comes in: they fail as loaded in bfloat16
MIXING = {
    ("sequence-classification", "deberta"): "attention.self",
    ("sequence-classification", "fnet"): "fourier.self",
    ("causal-lm", "xlnet"): "rel_attn",
    ("causal-lm", "xlstm"): "mlstm_layer.mlstm_backend",
}


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the evaluation is of the architectures of transformers 5")
@pytest.mark.parametrize(
    ("task", "model_type"), [pytest.param(*key, marks=pytest.mark.slow if place else ()) for place, key in enumerate(MIXING)]
)
def test_what_trains_after_pefts_prepare_trains_after_the_fix_too(task, model_type, tmp_path):
    import kbitlint
    from benchmarks.truth import real_steps
    from benchmarks.truth.architectures import build
    from benchmarks.truth.preparations import PREPARATIONS

    build(task, model_type).save_pretrained(tmp_path)
    loaded, fixed = real_steps.load(tmp_path)[0], real_steps.load(tmp_path)[0]
    before = tiny.state(fixed)

    edits = [edit.path for edit in kbitlint.fix(fixed).applied.edits if edit.kind == "float32-module"]
    floats = {name for name, p in fixed.named_parameters() if p.is_floating_point() and p.dtype.itemsize == 4}

    assert edits
    assert all(path.endswith(MIXING[task, model_type]) for path in edits)
    assert not any("embeddings" in name and "norm" not in name.lower() for name in floats)
    assert real_steps.step_of(loaded, PREPARATIONS["none"])["error"]["kind"] == "dtype"
    trained = real_steps.step_of(real_steps.load(tmp_path)[0], PREPARATIONS["kbitlint"])
    assert (trained["outcome"], trained["without_gradient"], trained["not_finite"]) == ("ok", [], [])
    assert kbitlint.undo(fixed) == 1
    assert tiny.state(fixed) == before


#: adapters that unpack the weight, need inputs of their own or lose their state, in the order that shows it
ADAPTERS = [
    ("dora", "nf4", "none"),
    ("oft", "nf4", "fix-after"),
    ("hira", "int8", "peft"),
    ("alora", "nf4", "fix-after"),
    ("multitask prompt tuning", "nf4", "none"),
    ("poly", "nf4", "peft"),
]


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the evaluation is of the newest PEFT")
@pytest.mark.parametrize(("name", "kind", "order"), ADAPTERS)
def test_every_adapter_type_is_judged_as_its_real_steps(name, kind, order):
    from benchmarks.truth import adapters

    line = adapters.state(name, kind, order)

    assert line["attach"] is None
    assert adapters.differences(line) == []


@pytest.mark.parametrize(
    ("message", "said", "wanted"),
    [
        ("index 17 is out of bounds", {"verdict": "other", "message": "IndexError: index 3 is out of bounds"}, True),
        ("index 17 is out of bounds", {"verdict": "other", "message": "RuntimeError: cannot broadcast 4 at -3"}, False),
        ("index 17 is out of bounds", {"verdict": "untraceable", "message": ""}, False),
        ("index 17 is out of bounds", {"verdict": "packed", "message": "", "readers": ["layer.0"]}, True),
        ("index 17 is out of bounds", {"verdict": "packed", "message": "", "readers": ["layer.1"]}, False),
        ("element 0 of tensors does not require grad", {"verdict": "packed", "message": "", "readers": ["layer.0"]}, False),
    ],
)
def test_two_different_failures_are_not_equal(message, said, wanted):
    from benchmarks.truth import verdicts

    real = {"outcome": "error", "error": {"message": message, "module": "layer.0"}}

    assert verdicts.agrees(real, said) is wanted
    assert verdicts.is_skipped(real, said) is (said["verdict"] == "untraceable")


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the scripts are of transformers 5")
@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 50), marks=pytest.mark.slow)], ids=["few", "more"])
def test_generated_scripts_that_train_have_no_error_and_the_broken_ones_have_one(seeds):
    """The fixed share of the generated programs; ``benchmarks.truth.generated`` goes on with other seeds."""
    from benchmarks.truth import generated, program_runs
    from benchmarks.truth.programs import drawn

    lines = [{"seed": seed} | program_runs.forked(drawn(seed)) for seed in seeds]
    found = {line["seed"]: generated.difference(line) for line in lines}

    assert len({line["real"] for line in lines}) >= 3
    assert {seed: what for seed, what in found.items() if what and not what.startswith("silent on the script")} == {}
    assert sum(1 for what in found.values() if what) <= len(seeds) // 6


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the scripts are of transformers 5")
def test_a_difference_is_shrunk_to_the_options_that_show_it(monkeypatch):
    from benchmarks.truth import generated
    from benchmarks.truth.program_runs import forked
    from benchmarks.truth.programs import STEPS, plain

    usual = {step: plain(step) for step in STEPS}
    line = forked(usual | {"loop": "labels ignored", "further": "rslora", "layers": "1"})

    assert line["real"] == "trains nothing"
    assert line["source"]["errors"]
    # as if no rule named it: what is silent today, a rule names tomorrow
    monkeypatch.setattr(generated, "difference", lambda line: line["real"] if line["real"] != "trains" else None)
    assert generated.odd(generated.shrunk(line)["program"]) == {"loop": "labels ignored"}


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the scripts are of transformers 5")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loop": "sft"},
        {"adapter": "lora, no such layer"},
        {"loop": "trainer, tokenizer"},
        {"prepared": "after the adapters"},
    ],
)
def test_a_rehearsal_of_a_generated_script_ends_as_its_real_run(options):
    from benchmarks.truth.program_runs import forked
    from benchmarks.truth.programs import STEPS, plain
    from benchmarks.truth.rehearsed import compared, rehearsed

    line = forked({step: plain(step) for step in STEPS} | options)

    assert compared(line | {"rehearsal": rehearsed(line["program"])}) is None
