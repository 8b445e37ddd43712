"""Families of checkpoints by name, and names of modules against the classes of the installed transformers."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers.models.auto import configuration_auto, modeling_auto

from kbitlint.facts.model_state import CheckpointConfig
from kbitlint.upstream.architectures import ARCHITECTURES
from kbitlint.upstream.families import facts_of, family_of
from kbitlint.upstream.family_rows import FAMILIES
from kbitlint.upstream.hub_names import stored_method

#: the mappings of model types to classes, in the order in which a type's class is looked up
CLASSES = (
    modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)


def test_there_are_as_many_families_as_were_promised():
    assert len(FAMILIES) >= 150
    assert len({row.word for row in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("row", FAMILIES, ids=lambda row: row.source)
def test_a_row_is_found_by_the_checkpoint_that_it_is_taken_from(row):
    assert family_of(row.source) is row
    assert row.dtype in ("bfloat16", "float16", "float32")
    assert (
        not row.architecture or row.architecture in ARCHITECTURES or row.architecture in configuration_auto.CONFIG_MAPPING_NAMES
    )


@pytest.mark.parametrize(
    ("name", "dtype", "vocabulary", "hidden", "tied"),
    [
        ("NousResearch/Meta-Llama-3-8B-Instruct", "bfloat16", 128256, 4096, False),
        ("./models/llama-3-8b", "bfloat16", 128256, 4096, False),
        ("unsloth/Llama-3.2-1B-bnb-4bit", "bfloat16", 128256, 2048, True),
        ("my-gemma-7b-chat", "bfloat16", 256000, 3072, True),
        ("/data/Qwen2.5-0.5B-Instruct/", "bfloat16", 152064, 896, True),
        ("Qwen/Qwen2.5-72B", "bfloat16", 152064, 8192, False),
        ("TheBloke/Llama-2-13B-fp16", "float16", 32000, 5120, False),
        ("someone/llama-2-7b-bf16", "bfloat16", 32000, 4096, False),
        ("huggyllama/llama-65b", "float16", 32000, 8192, False),
        ("google-t5/t5-large", "float32", 32128, 1024, False),
        ("lab/base-7b", "", 0, 0, None),
        ("bigemma-2b", "", 0, 0, None),
        ("lab/optimus-7b", "", 0, 0, None),
    ],
)
def test_a_name_tells_what_its_family_has(name, dtype, vocabulary, hidden, tied):
    known = facts_of(name)

    assert (known.dtype, known.vocabulary, known.hidden, known.tied) == (dtype, vocabulary, hidden, tied)


def test_a_config_on_this_machine_counts_and_not_the_name():
    config = CheckpointConfig("qwen2", tied=False, dtype="float16", vocabulary=7, hidden=8)
    known = facts_of("meta-llama/Llama-3.1-8B", config)

    assert (known.family, known.dtype, known.vocabulary, known.hidden, known.model_type) == (None, "float16", 7, 8, "qwen2")
    assert facts_of("google/gemma-2-2b", CheckpointConfig("gemma2")).overflows
    assert facts_of(None).family is None


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("unsloth/llama-3-8b-bnb-4bit", ("bitsandbytes", 4)),
        ("lab/x-bnb-8bit", ("bitsandbytes", 8)),
        ("TheBloke/Mistral-7B-GPTQ", ("gptq", None)),
        ("TheBloke/Mistral-7B-AWQ", ("awq", None)),
        ("lab/x-4bit", None),
        ("lab/awqward", None),
    ],
)
def test_a_name_tells_the_stored_quantization(name, stored):
    assert stored_method(name) == stored


def _model(model_type: str) -> torch.nn.Module:
    """Return a model of a type on the meta device, with its class's default config."""
    name = next(names[model_type] for names in CLASSES if model_type in names)
    cls = getattr(transformers, name if isinstance(name, str) else name[0])
    with torch.device("meta"):
        try:
            return cls(cls.config_class())
        except Exception:  # noqa: BLE001  # the class is that of a part, whose default config is incomplete
            return cls(configuration_auto.CONFIG_MAPPING[model_type]())


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("vit", "ViTForImageClassification"),
        ("swin", "SwinForImageClassification"),
        ("dinov2", "Dinov2ForImageClassification"),
        ("videomae", "VideoMAEModel"),
        ("whisper", "WhisperForConditionalGeneration"),
        ("clip", "CLIPModel"),
        ("bert", "BertForSequenceClassification"),
        ("roberta", "RobertaForTokenClassification"),
        ("audio-spectrogram-transformer", "ASTForAudioClassification"),
    ],
)
def test_an_encoder_has_the_names_of_its_class(model_type, name):
    cls = getattr(transformers, name)
    with torch.device("meta"):
        model = cls(cls.config_class())
    paths = [path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    leaves = {path.rpartition(".")[2] for path in paths} - {"lm_head"}
    row = ARCHITECTURES[model_type]

    assert leaves <= row.names
    assert row.names - leaves <= {*row.more.split(), "classifier", "projector", "out_proj"}  # heads of other classes


@pytest.mark.parametrize(
    "model_type", ["llama", "mixtral", "qwen3_moe", "gemma3", "phi", "gpt2", "qwen2_5_vl", "llava", "t5", "deepseek_v3"]
)
def test_an_architecture_has_the_names_of_its_class(model_type):
    row, model = ARCHITECTURES[model_type], _model(model_type)
    linear = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    paths = [name for name, module in model.named_modules() if isinstance(module, linear)]
    leaves = {path.rpartition(".")[2] for path in paths} - {"lm_head"}
    stacks = {name.rpartition(".")[2] for name, p in model.named_parameters() if p.ndim == 3 and "expert" in name}

    assert {leaf for leaf in leaves if not leaf.isdigit()} == set(row.linears.split())
    assert {".".join(path.split(".")[:2]) for path in paths} == set(row.parts.split())
    assert stacks == set(row.experts.split())
