from __future__ import annotations

import itertools

import pytest
import tiny
import transformers
from script_cases import findings

CODE = "KB635"

pytestmark = pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 4 spares the last module by itself")


@pytest.fixture
def folder(tmp_path):
    """Return a function that saves a packed checkpoint, and returns its folder."""
    numbers = itertools.count()

    def save(family="llama", **quantization):
        place = tmp_path / f"packed{next(numbers)}"
        tiny.load(family, **quantization).save_pretrained(place)
        return place

    return save


def script(place, cls, more=""):
    return f"import transformers\nmodel = transformers.{cls}.from_pretrained('{place}', num_labels=3{more})\n"


def loaded(place, cls):
    return getattr(transformers, cls).from_pretrained(place, device_map="cpu", num_labels=3)


@pytest.mark.parametrize("cls", ["AutoModelForSequenceClassification", "AutoModelForTokenClassification"])
def test_a_new_head_that_the_stored_list_does_not_spare_cannot_be_initialised(folder, cls):
    place = folder(llm_int8_skip_modules=["lm_head", "k_proj"])

    (one,) = findings(CODE, script(place, cls))
    assert (one[0], "score" in one[2]) == ("error", True)
    with pytest.raises(NotImplementedError, match="Byte"):
        loaded(place, cls)


def test_without_a_stored_list_the_head_is_spared(folder):
    place = folder()

    assert findings(CODE, script(place, "AutoModelForSequenceClassification")) == []
    assert type(loaded(place, "AutoModelForSequenceClassification").score).__name__ == "Linear"


def test_a_list_that_names_the_head_spares_it(folder):
    place = folder(llm_int8_skip_modules=["lm_head", "score"])

    assert findings(CODE, script(place, "AutoModelForSequenceClassification")) == []
    assert type(loaded(place, "AutoModelForSequenceClassification").score).__name__ == "Linear"


def test_the_class_of_the_checkpoint_and_a_config_of_ones_own_are_not_flagged(folder):
    place = folder("llama (classifier)", llm_int8_skip_modules=["k_proj", "q_proj"])
    assert findings(CODE, script(place, "AutoModelForSequenceClassification")) == []

    place = folder(llm_int8_skip_modules=["lm_head", "k_proj"])
    assert findings(CODE, script(place, "AutoModelForCausalLM")) == []
    assert findings(CODE, script(place, "AutoModelForSequenceClassification", ", config=config")) == []
