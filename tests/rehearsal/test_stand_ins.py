"""Each stand-in answers as the real thing: compared with the installed libraries, on tiny models with weights."""

from __future__ import annotations

import inspect
import os
import re

import datasets
import huggingface_hub
import pytest
import tiny
import torch
import transformers
import trl.trainer.utils
import trl_trainers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.trainer_utils import TrainOutput

from kbitlint.audit.options import options_of
from kbitlint.rehearsal.command import Command
from kbitlint.rehearsal.inside.folders import Mirror
from kbitlint.rehearsal.inside.record import Record
from kbitlint.rehearsal.messages import Request
from kbitlint.rehearsal.stand_ins import data, devices, generation, rows, services, words
from kbitlint.rehearsal.trainings import loops, training_end
from kbitlint.upstream import checkpoints, geometries, special_tokens
from kbitlint.upstream.families import Known
from kbitlint.upstream.family_rows import FAMILIES


def meta(model):
    with torch.device("meta"):
        return type(model)(model.config)


@pytest.mark.parametrize("auto", [AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModel])
@pytest.mark.parametrize("labelled", [True, False])
def test_an_answer_has_the_parts_and_shapes_of_a_real_output(auto, labelled):
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, pad_token_id=0
    )
    model = auto.from_config(config)
    inputs = {"input_ids": torch.randint(1, 64, (2, 6))}
    if labelled and auto is not AutoModel:
        inputs["labels"] = inputs["input_ids"] if auto is AutoModelForCausalLM else torch.tensor([0, 1])

    real, answer = model(**inputs), loops.answer(meta(model), inputs)

    for name in ("loss", "logits", "last_hidden_state"):
        one, other = getattr(real, name, None), getattr(answer, name, None)
        assert (one is None, None if one is None else one.shape) == (other is None, None if other is None else other.shape), (
            name
        )
        assert one is None or (one.dtype, one.requires_grad) == (other.dtype, other.requires_grad), name


def test_a_model_without_trained_parameters_answers_with_a_loss_that_cannot_go_backward():
    model = meta(transformers.LlamaForCausalLM(transformers.LlamaConfig(**tiny._TEXT)))
    model.requires_grad_(False)
    tokens = torch.randint(1, 64, (2, 6))

    loss = loops.answer(model, {"input_ids": tokens, "labels": tokens}).loss

    with pytest.raises(RuntimeError, match="does not require grad"):
        loss.backward()


def trained(tmp_path):
    tokens = trl_trainers.tokenizer(of_bytes=True)
    config = transformers.LlamaConfig(**{**tiny._TEXT, "num_hidden_layers": 1})
    rows_of_ids = [{"input_ids": tokens(text)["input_ids"], "labels": tokens(text)["input_ids"]} for text in ("one", "two")]
    args = transformers.TrainingArguments(
        str(tmp_path), max_steps=1, per_device_train_batch_size=1, logging_steps=1, report_to="none", use_cpu=True
    )
    return transformers.Trainer(
        transformers.LlamaForCausalLM(config), args, train_dataset=rows_of_ids, eval_dataset=rows_of_ids
    )


@pytest.fixture
def record(tmp_path):
    reading, writing = os.pipe()
    command = Command("train.py")
    yield Record(Request(command, str(tmp_path), str(tmp_path), "a100", options_of({}), 64), Mirror(str(tmp_path)), writing)
    os.close(reading)
    os.close(writing)


def test_what_train_and_evaluate_return_has_the_names_of_the_real_results(tmp_path, record):
    trainer = trained(tmp_path)
    real = trainer.train()
    metrics = trainer.evaluate()
    (step, summary, _) = trainer.state.log_history
    trainer.state.log_history.clear()

    made = training_end.finish(record, trainer, TrainOutput)

    assert (type(made), set(made.metrics)) == (type(real), set(real.metrics))
    assert made.global_step == real.global_step
    assert [set(one) for one in trainer.state.log_history] == [set(step), set(summary)]
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").exists()
    assert {"eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "epoch"} <= set(metrics)


GENERATED = [
    {"max_new_tokens": 3},
    {"max_new_tokens": 9, "min_new_tokens": 9},
    {"max_new_tokens": 5, "min_new_tokens": 5, "num_return_sequences": 3, "do_sample": True},
    {"max_length": 8, "num_beams": 4, "num_return_sequences": 2, "min_length": 8},
    {"max_new_tokens": 2, "num_beams": 3, "return_dict_in_generate": True, "output_scores": True},
    {"max_new_tokens": 2, "return_dict_in_generate": True, "output_logits": True, "output_hidden_states": True},
]
CAUSAL, ENCODING = (
    transformers.LlamaConfig(**tiny._TEXT),
    transformers.T5Config(
        vocab_size=256,
        d_model=64,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    ),
)


@pytest.mark.parametrize("asked", GENERATED, ids=str)
@pytest.mark.parametrize("auto", [transformers.LlamaForCausalLM, transformers.T5ForConditionalGeneration])
def test_generated_text_has_the_shapes_of_real_text(record, monkeypatch, auto, asked):
    model = auto(CAUSAL if auto is transformers.LlamaForCausalLM else ENCODING).eval()
    model.generation_config.eos_token_id = None  # random weights may end a text anywhere
    tokens = {"input_ids": torch.randint(3, 64, (2, 5)), "attention_mask": torch.ones(2, 5, dtype=torch.long)}

    real = model.generate(**tokens, **asked)

    with monkeypatch.context() as patches:
        module = transformers.generation.utils
        for name in ("_sample", "_beam_search"):
            owner = module.GenerationMixin
            patches.setattr(owner, name, generation._loop(record, module, getattr(owner, name)))
        hollow = meta(model)
        hollow.generation_config = model.generation_config
        if auto is transformers.T5ForConditionalGeneration:  # its encoder is answered as the forward passes of scripts are
            hollow.encoder = model.encoder
        answered = hollow.generate(**tokens, **asked)

    if not asked.get("return_dict_in_generate"):
        assert (answered.shape, answered.dtype) == (real.shape, real.dtype)
        return
    assert type(answered) is type(real)
    assert answered.sequences.shape == real.sequences.shape
    for name in ("scores", "logits", "sequences_scores", "hidden_states", "decoder_hidden_states"):
        one, other = getattr(real, name, None), getattr(answered, name, None)
        assert shapes(one) == shapes(other), name


def shapes(value):
    return [shapes(one) for one in value] if isinstance(value, tuple) else None if value is None else value.shape


def test_a_text_ends_by_itself_where_there_is_room():
    prompts = torch.full((2, 3), 9)
    config = transformers.GenerationConfig(max_length=20, eos_token_id=[7, 8])

    made = generation._new_tokens(prompts, config)

    assert made.tolist() == [[5, 5, 5, 7]] * 2
    config.max_length = 5
    assert generation._new_tokens(prompts, config).tolist() == [[5, 5]] * 2


def test_a_head_of_trl_answers_with_the_parts_and_shapes_of_its_own_output():
    model = transformers.LlamaForCausalLM(CAUSAL)
    trl.trainer.utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    tokens = torch.randint(3, 64, (2, 6))
    inputs = {"input_ids": tokens, "labels": tokens.clone(), "fused_lm_head": True}
    inputs["labels"][:, :3] = -100

    real, answer = model(**inputs), loops.answer(meta(transformers.LlamaForCausalLM(CAUSAL)), inputs)

    assert type(answer) is type(real)
    for name in ("loss", "log_probs", "entropy", "mean_logits", "is_top1", "label_mask"):
        assert getattr(answer, name).shape == getattr(real, name).shape, name
    assert answer.label_mask.equal(real.label_mask)
    assert answer.log_probs.requires_grad


def test_the_hub_answers_with_its_own_classes():
    commit = services._commit("me/tiny")

    assert isinstance(commit, huggingface_hub.CommitInfo)
    assert commit.repo_url.repo_id == "me/tiny"
    assert services._answered(commit, {"run_as_future": True}).result(timeout=0) is commit
    assert huggingface_hub.RepoUrl(services._address("tiny")).repo_id == "rehearsal/tiny"


def test_a_trainer_calls_what_is_replaced():
    """The first step of ``train`` is ``training_step``, with the batch as its second argument."""
    names = list(inspect.signature(transformers.Trainer.training_step).parameters)

    assert names[:4] == ["self", "model", "inputs", "num_items_in_batch"]
    assert "self.training_step(" in inspect.getsource(transformers.Trainer)
    assert "num_items_in_batch" in inspect.signature(transformers.Trainer.compute_loss).parameters
    assert callable(transformers.trainer.get_reporting_integration_callbacks)


@pytest.mark.parametrize("name", devices._SILENT)
def test_torch_cuda_has_each_function_that_does_nothing(name):
    assert callable(getattr(torch.cuda, name))


@pytest.mark.parametrize(
    ("name", "answers"), [("t4", (False, True)), ("a100", (True, True)), ("h100", (True, True)), ("4090", (True, True))]
)
def test_bfloat16_of_each_device(name, answers):
    """torch emulates bfloat16 on older devices, and says so unless it is asked for the units."""
    assert (devices.DEVICES[name].has_bfloat16, True) == answers


KNOWN = {
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "openai-community/gpt2": 124_439_808,
    "facebook/opt-125m": 125_239_296,
    "bigscience/bloom-560m": 559_214_592,
    "google/gemma-2b": 2_506_172_416,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "google-t5/t5-base": 222_903_552,
    "distilbert/distilbert-base-uncased": 66_985_530,
    "FacebookAI/roberta-base": 124_697_433,
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_family_has_as_many_parameters_as_its_checkpoint(name):
    values = checkpoints.checkpoint_of(name).config
    config = AutoConfig.for_model(**values)
    with torch.device("meta"):
        model = getattr(transformers, values["architectures"][0])(config)

    assert sum(parameter.numel() for parameter in model.parameters()) == KNOWN[name]


#: (family, size) of each shape
SHAPES = [
    (row, item.partition(":")[0])
    for key, sizes in geometries.SHAPES.items()
    for row in FAMILIES
    if set(row.word.split()) & set(key.split())
    for item in sizes.split()
    if f"{item.partition(':')[0]}:" in row.hidden
]


@pytest.mark.parametrize(("family", "size"), SHAPES, ids=lambda one: one if isinstance(one, str) else one.word)
def test_every_shape_is_a_config_of_the_installed_transformers(family, size):
    known = Known(family, model_type=family.architecture, size=size)
    values, exact = geometries.config_of(known)
    text = AutoConfig.for_model(**values).get_text_config()
    tokens = special_tokens.tokens_of(known)

    assert exact
    assert "architectures" not in values or hasattr(transformers, values["architectures"][0])
    assert tokens.size <= text.vocab_size, "every token has a row"
    special = [pair for pair in (tokens.bos, tokens.eos, tokens.pad, tokens.unk) if pair]
    assert all(number < text.vocab_size for _, number in special)


def test_every_shape_belongs_to_a_family_of_the_table():
    words_of_rows = {word for row in FAMILIES for word in row.word.split()}

    assert {word for key in geometries.SHAPES for word in key.split()} - words_of_rows == set()
    assert [key for key in geometries.SHAPES if not any(set(row.word.split()) & set(key.split()) for row, _ in SHAPES)] == []


@pytest.mark.parametrize(
    "name", ["meta-llama/Meta-Llama-3-8B", "google-bert/bert-base-uncased", "google/flan-t5-small", "gpt2"]
)
def test_a_tokenizer_has_the_size_and_the_special_tokens_of_its_family(name):
    family = checkpoints.checkpoint_of(name)
    tokenizer = words.stand_in(name, family.words)

    assert len(tokenizer) == family.words.size
    for key in ("bos", "eos", "pad", "unk"):
        pair = getattr(family.words, key)
        assert (getattr(tokenizer, f"{key}_token"), getattr(tokenizer, f"{key}_token_id")) == (pair or (None, None)), key
    ids = tokenizer("Grüße, 123!", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "Grüße, 123!"
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]}) == 1
    assert len(tokenizer) == family.words.size + 1


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("meta-llama/Meta-Llama-3-8B", False),
        ("meta-llama/Meta-Llama-3-8B-Instruct", True),
        ("google/gemma-2b-it", True),
        ("gpt2", False),
    ],
)
def test_only_chat_models_have_a_chat_template(name, has):
    tokenizer = words.stand_in(name, checkpoints.checkpoint_of(name).words)

    assert bool(tokenizer.chat_template) == has
    if has:
        text = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True)
        assert "hello" in text


def test_a_name_of_no_family_is_not_guessed():
    assert checkpoints.checkpoint_of("somebody/unheard-of-model") is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("somebody/unheard-of-model", ""),
        ("lama-3-8b", "; did you mean 'llama3-8b'?"),
        ("meta-llama/Llama-3-9B", "; known by name alone are llama3-8b, llama3-70b"),
        ("Llama-3.3-Foo", "; known by name alone are llama3.3-70b"),
        ("TheBloke/Llama-2-7B-GPTQ", "; the name says that it is stored quantized, and not in which layers"),
        ("google/t5-v1_1-base", "; did you mean 't5-base'?"),
        ("Qwen/CodeQwen1.5-7B", "; did you mean 'qwen1.5-7b'?"),
    ],
)
def test_a_name_that_tells_no_geometry_is_told_the_nearest_that_does(name, hint):
    assert (checkpoints.measurable(name), checkpoints.nearest(name)) == (None, hint)
    for word in re.findall(r"[\w.]+-\w+", hint.partition("are ")[2]):
        assert checkpoints.measurable(word) is not None


class TestData:
    @pytest.fixture
    def made(self):
        staged = data.staged_class(datasets)
        return staged.of(datasets.Dataset.from_dict({"text": [rows.sentence(number) for number in range(8)]}), learns=True)

    def test_a_column_that_a_function_reads_is_learned(self, made):
        mapped = made.map(lambda row: {"both": row["question"] + row["answer"]})

        assert sorted(mapped.column_names) == ["answer", "both", "question", "text"]
        assert mapped[3]["both"] == mapped[3]["question"] + mapped[3]["answer"]

    def test_columns_of_batches_and_of_removals_are_learned(self, made):
        mapped = made.map(
            lambda batch: {"size": [len(one) for one in batch["body"]]}, batched=True, remove_columns=["id", "text"]
        )

        assert sorted(mapped.column_names) == ["body", "size"]

    def test_a_function_of_arrow_tables_is_called_with_them(self, made):
        mapped = made.with_format("arrow").map(lambda table: table.slice(0, 2), batched=True)

        assert (len(mapped), mapped.column_names) == (2, ["text"])

    def test_a_column_that_is_read_directly_is_learned(self, made):
        assert len(made["title"]) == 8
        assert made[0]["score"] == 0.0
        assert {"title", "score"} <= set(made.column_names)

    def test_few_rows_answer_for_many(self, made):
        assert len(made.select(range(1000))) == 8
        assert len(made.shuffle(seed=1).select(range(100, 110))) == 8
        assert [len(part) for part in made.train_test_split(test_size=500).values()] == [6, 2]
        assert len(made.filter(lambda row: len(row["comment"]) > 3)) == 8

    def test_a_data_set_that_is_real_learns_nothing(self, made):
        real = type(made).of(datasets.Dataset.from_dict({"text": ["a", "b"]}), learns=False)

        with pytest.raises(KeyError):
            real.map(lambda row: {"x": row["question"]})
        with pytest.raises(ValueError, match="id"):
            real.remove_columns("id")

    def test_every_method_that_it_replaces_is_one_of_datasets(self):
        assert [name for name in data._MAKING if not hasattr(datasets.Dataset, name)] == []

    @pytest.mark.parametrize(
        ("name", "column"), [("tatsu-lab/alpaca", "instruction"), ("HuggingFaceH4/ultrachat_200k", "messages")]
    )
    def test_a_well_known_data_set_has_its_columns(self, name, column):
        assert column in rows.known_columns(name)[0]


@pytest.mark.parametrize(
    "name", ["ibm-granite/granite-3.0-8b-instruct", "CohereForAI/c4ai-command-r-v01", "stabilityai/stablelm-2-1_6b"]
)
def test_a_name_of_which_only_the_architecture_is_known_has_its_default_size(name):
    family = checkpoints.checkpoint_of(name)
    config = AutoConfig.for_model(**family.config)

    assert not family.exact
    assert config.model_type == family.config["model_type"]
    assert family.words.size <= config.get_text_config().vocab_size


def test_modules_that_are_known_by_name_are_there():
    """The frames of these modules are passed over, by their names in a traceback."""
    from importlib.util import find_spec

    from kbitlint.rehearsal.inside.artefacts import PASSING
    from kbitlint.rehearsal.stand_ins.made_up_files import HOOKS

    assert [name for name in sorted(PASSING | HOOKS) if find_spec(name) is None] == []
