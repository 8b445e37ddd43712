"""Model types for which libraries refuse a choice, and paths of layers, against the installed libraries."""

from __future__ import annotations

import pytest
import torch
import transformers
from peft.tuners.adaption_prompt import config as adaption_prompt
from peft.tuners.mixed import COMPATIBLE_TUNER_TYPES
from peft.utils import constants
from transformers.models.auto import configuration_auto, modeling_auto
from transformers.pytorch_utils import Conv1D

from kbitlint.upstream.architectures import ARCHITECTURES
from kbitlint.upstream.contracts.auto_classes import NO_CAUSAL, NO_CLASSIFIER, REFUSED
from kbitlint.upstream.contracts.model_types import ADAPTION_PROMPT, DEFAULT_TARGETS, MIXABLE, NO_FLASH, NO_SDPA
from kbitlint.upstream.family_rows import FAMILIES
from kbitlint.upstream.layer_paths import STACKS, layer_paths

MAPPINGS = (
    modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)
pytestmark = pytest.mark.skipif(
    tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 23), reason="the lists describe the newest version"
)


def classes(model_type):
    names = [mapping[model_type] for mapping in MAPPINGS if model_type in mapping]
    return [getattr(transformers, name if isinstance(name, str) else name[0]) for name in names]


@pytest.mark.parametrize(("flag", "known"), [("_supports_sdpa", NO_SDPA), ("_supports_flash_attn", NO_FLASH)])
def test_the_types_whose_classes_lack_a_kind_of_attention(flag, known):
    lacking = {name for name in ARCHITECTURES if (found := classes(name)) and not any(getattr(cls, flag) for cls in found)}

    assert lacking == set(known)


@pytest.mark.parametrize(("method", "types"), [(one, types) for many, types in DEFAULT_TARGETS.items() for one in many])
def test_the_types_whose_targets_a_method_of_peft_knows(method, types):
    assert set(types) == set(getattr(constants, f"TRANSFORMERS_MODELS_TO_{method}_TARGET_MODULES_MAPPING"))


def test_the_types_for_which_peft_has_adaption_prompts():
    assert set(adaption_prompt.TRANSFORMERS_MODEL_CONFIG) == set(ADAPTION_PROMPT)


def test_the_types_that_an_auto_class_refuses():
    known = {name: getattr(transformers, name)._model_mapping._model_mapping for name, *_ in REFUSED}
    types = {*ARCHITECTURES, *(family.architecture for family in FAMILIES)} & set(configuration_auto.CONFIG_MAPPING_NAMES)

    assert [(name, one) for name, refused, _ in REFUSED for one in refused if one in known[name]] == []
    assert set(NO_CAUSAL) == types - set(known["AutoModelForCausalLM"])
    assert set(NO_CLASSIFIER) == types - set(known["AutoModelForSequenceClassification"])


def test_the_methods_that_a_mixed_model_takes():
    assert {kind.value for kind in COMPATIBLE_TUNER_TYPES} == set(MIXABLE)


@pytest.mark.parametrize("model_type", STACKS)
def test_paths_of_layers_are_those_of_the_class(model_type):
    cls = classes(model_type)[0]
    config = configuration_auto.CONFIG_MAPPING[model_type]()
    with torch.device("meta"):
        model = cls(config)
    linears = {path for path, module in model.named_modules() if isinstance(module, (torch.nn.Linear, Conv1D))}
    stacks = tuple(f"{stack}.0." for stack, _ in STACKS[model_type])

    assert set(layer_paths(model_type)) == {path for path in linears if path.startswith(stacks) and "expert" not in path}
