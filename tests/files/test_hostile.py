"""Files of strangers: no text, no bytes, no JSON value and no header makes a parser raise anything but its own error."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import pytest
import yaml
from checkpoint_cases import adapter, checkpoint, floats, packed, save
from hypothesis import given
from hypothesis import strategies as st

from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError
from kbitlint.facts.checkpoint import CheckpointFacts
from kbitlint.files import json_edits, json_text, safetensors
from kbitlint.files.checkpoint import read_checkpoint
from kbitlint.files.packing import packing_of
from kbitlint.files.safetensors import HeaderError, parse
from kbitlint.registry import all_rules
from kbitlint.source import documents, notebooks, python
from kbitlint.source.configs import collect as configs
from kbitlint.source.configs import tree as config_tree
from kbitlint.upstream.versions import NEWEST
from kbitlint.violation import Edit, Surface

SCRIPT = """
model bnb get_peft_model prepare_model_for_kbit_training BitsAndBytesConfig Trainer TrainingArguments LoraConfig
( ) , = . : { } [ ] ** * 'x' True None if else for in def class return lambda self 1 from import load_in_4bit
use_reentrant gradient_checkpointing_enable parameters requires_grad _ := f'{x}' with as try except:
"""
WORDS = st.sampled_from([*SCRIPT.split(), "\n", "\n    ", "# kbitlint: ignore[KB401]\n"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def allowed(function, *errors):
    try:
        return function()
    except errors:
        return None


@given(st.text())
def test_any_text_is_python_or_refused(text):
    allowed(lambda: python.collect("f.py", "# PeftModel\n" + text.replace("\r", ""), NEWEST), python.SourceError)


@given(st.lists(WORDS, max_size=40))
def test_any_words_of_a_script_are_followed_or_refused(words):
    text = "from peft import PeftModel\n" + " ".join(words)
    facts = allowed(lambda: python.collect("f.py", text, NEWEST), python.SourceError)
    for rule in all_rules() if facts else ():
        if Surface.SOURCE in rule.checks():
            list(rule.check_source(facts, TrainingContext()))


@given(st.binary(), st.sampled_from([".py", ".ipynb", ".yaml", ".json"]))
def test_any_bytes_are_a_document_or_refused(content, suffix):
    marked = content + b"\n# load_in_4bit PeftModel"
    allowed(lambda: documents.parse(Path(f"f{suffix}"), marked, "f", NEWEST), KbitlintError)


@given(VALUES)
def test_any_json_value_is_read_with_its_places(value):
    text = json.dumps(value, indent=1)
    node = json_text.parse(text)

    assert json.dumps(node.plain()) == json.dumps(json.loads(text))
    assert text[node.start : node.end] == text


@given(VALUES, st.sampled_from([".yaml", ".json", ".ipynb"]))
def test_any_value_is_a_configuration_or_none(value, suffix):
    if suffix == ".ipynb":
        allowed(lambda: notebooks.read(json.dumps(value)).written(()), notebooks.NotebookError)
        return
    known = {"base_model": value, "adapter": value, "load_in_4bit": True, "micro_batch_size": value, "quantization_bit": value}
    text = json.dumps(known) if suffix == ".json" else yaml.safe_dump(known)
    facts = allowed(lambda: configs.collect("f", text, suffix, NEWEST), config_tree.ConfigurationError)
    for rule in all_rules() if facts else ():
        if Surface.SOURCE in rule.checks():
            list(rule.check_source(facts, TrainingContext()))


@given(VALUES, VALUES)
def test_any_config_json_passes_every_rule_on_files(quantization, value):
    config = {"model_type": "llama", "quantization_config": quantization, "tie_word_embeddings": value, "vocab_size": value}
    facts = CheckpointFacts("f", config, {"peft_type": value, "inference_mode": value})
    from kbitlint import engine

    outcome = engine.run(all_rules(), {Surface.FILES: facts}, TrainingContext())

    assert outcome.crashes == ()


@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=4), st.text(max_size=6), VALUES)
def test_a_key_is_set_and_removed_and_everything_else_stays(value, name, new):
    if "." in name:
        return
    text = json.dumps(value, indent=2)
    edit = Edit("set-json-key", "f", {"key": name, "value": new})
    once = json_edits.changed(Path("f"), text, [edit])

    assert json.dumps(json.loads(once)) == json.dumps({**value, name: new})
    assert json_edits.changed(Path("f"), once, [edit]) == once
    gone = json_edits.changed(Path("f"), once, [Edit("remove-json-key", "f", {"key": name})])
    assert json.dumps(json.loads(gone)) == json.dumps({key: item for key, item in value.items() if key != name})


# --------------------------------------------------------------------------------------------------------- headers

GOOD = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "U8", "shape": [4, 1], "data_offsets": [8, 12]},
}


def header(entries, data=12, length=None):
    content = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    return (len(content) if length is None else length).to_bytes(8, "little") + content + b"\0" * data


def refused(content):
    with pytest.raises(HeaderError) as caught:
        parse(io.BytesIO(content), len(content))
    return str(caught.value)


def changed(**entry):
    return {**GOOD, "b": {**GOOD["b"], **entry}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is too short for a header"),
        (header(GOOD, length=2**63), "the header is said to be 9223372036854775808 bytes long, and the file has 137 more"),
        (header(b"{", 0), "the header is not usable JSON: JSONDecodeError"),
        (header(b"\xff", 0), "the header is not usable JSON: UnicodeDecodeError"),
        (header(b"[" * 100_000, 0), "the header is not usable JSON: RecursionError"),
        (header(b"[]", 0), "the header is no JSON object"),
        (header({"a": 1}, 0), "'a' is described by no object"),
        (header(changed(dtype="F33")), "'b' has no known dtype"),
        (header(changed(dtype=[])), "'b' has no known dtype"),
        (header(changed(shape="x")), "'b' has no usable shape"),
        (header(changed(shape=[-4, -1])), "'b' has no usable shape"),
        (header(changed(shape=[4.0, 1])), "'b' has no usable shape"),
        (header(changed(shape=[1] * 33)), "'b' has no usable shape"),
        (header(changed(shape=[2**62, 2**62])), "'b' takes 4 bytes, and its shape another number"),
        (header(changed(shape=[3, 1])), "'b' takes 4 bytes, and its shape another number"),
        (header(changed(data_offsets=[8])), "'b' has no usable offsets"),
        (header(changed(data_offsets=[8, 2**64])), "'b' lies outside of the file"),
        (header(changed(data_offsets=[12, 8])), "'b' lies outside of the file"),
        (header(changed(data_offsets=[True, 5])), "'b' lies outside of the file"),
        (header(changed(data_offsets=[4, 8])), "'b' overlaps another tensor"),
        (header(changed(data_offsets=[9, 13]), 13), "1 bytes before 'b' belong to no tensor"),
        (header(GOOD, 14), "2 bytes at the end belong to no tensor"),
        (header({"x" * 200: 1}, 0), ascii("x" * 77 + "...") + " is described by no object"),
    ],
)
def test_a_header_that_lies_is_refused_in_one_line(content, problem):
    assert refused(content) == problem


def test_a_header_that_is_too_long_is_not_read(monkeypatch):
    monkeypatch.setattr(safetensors, "MAX_HEADER", 16)
    assert refused(header(GOOD)) == "the header is said to be 125 bytes long; more than 16 are not read"

    monkeypatch.setattr(safetensors, "MAX_HEADER", 1 << 20)
    monkeypatch.setattr(safetensors, "MAX_TENSORS", 1)
    assert refused(header(GOOD)) == "the header names 2 tensors; more than 1 are not read"


def test_a_file_that_is_shorter_than_it_was():
    content = header(GOOD)

    with pytest.raises(HeaderError, match="the header ends before its length"):
        parse(io.BytesIO(content[:60]), len(content))


def test_memory_does_not_follow_what_a_header_claims(tmp_path):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:  # sparse: a terabyte that is not there
        file.write((2**39).to_bytes(8, "little"))
        file.truncate(2**40)
    tracemalloc.start()

    with pytest.raises(HeaderError, match="more than 16777216 are not read"):
        safetensors.read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 1 << 20


@given(st.data())
def test_any_mutation_of_a_header_is_read_or_refused(data):
    content = bytearray(header(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    tensors = allowed(lambda: parse(io.BytesIO(content), len(content)), HeaderError)

    assert tensors is None or all(tensor.end <= len(content) for tensor in tensors.values())


@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=4), st.integers(0, 64))
def test_any_json_object_as_a_header(entries, data):
    content = header(entries, data)
    tensors = allowed(lambda: parse(io.BytesIO(content), len(content)), HeaderError)

    assert tensors is None or packing_of(tensors) is not None


# ------------------------------------------------------------------------------------------------- links and names


def test_links_that_leave_the_folder_are_not_followed(tmp_path):
    outside = save(tmp_path / "outside.safetensors", floats("a"))
    folder = checkpoint(tmp_path / "model", None)
    (folder / "model.safetensors").symlink_to(outside)
    kept = adapter(tmp_path / "adapter", None)
    (kept / "adapter_model.safetensors").symlink_to(outside)

    for facts, name in ((read_checkpoint(folder), "model.safetensors"), (read_checkpoint(kept), "adapter_model.safetensors")):
        assert [(item.file, item.problem) for item in facts.unread] == [(name, "leads out of the folder, and is not followed")]
        assert (dict(facts.tensors), dict(facts.adapter_tensors)) == ({}, {})


def test_an_index_cannot_name_files_elsewhere(tmp_path):
    save(tmp_path / "outside.safetensors", floats("a"))
    folder = checkpoint(tmp_path / "model", None)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a.weight": "../outside.safetensors"}}))

    assert [item.file for item in read_checkpoint(folder).unread] == ["../outside.safetensors"]


def test_the_hubs_own_cache_keeps_its_files_in_blobs(tmp_path):
    blob = tmp_path / "models--org--base" / "blobs" / "abc"
    blob.parent.mkdir(parents=True)
    save(blob, floats("a"))
    folder = checkpoint(tmp_path / "models--org--base" / "snapshots" / "def", None)
    (folder / "model.safetensors").symlink_to(blob)

    assert list(read_checkpoint(folder).tensors) == ["a.weight"]


def test_shards_are_read_through_the_index(tmp_path):
    folder = checkpoint(tmp_path, None)
    save(folder / "one.safetensors", packed("a"))
    save(folder / "two.safetensors", floats("b"))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(packed("a"), "one.safetensors") | {"b.weight": "two.safetensors"}})
    )

    facts = read_checkpoint(folder)

    assert (facts.damages, len(facts.tensors), facts.packing.modules) == ((), 5, {"a"})


def test_one_file_of_weights_may_be_checked_alone(run, tmp_path):
    save(tmp_path / "w.safetensors", {k: v for k, v in packed("a").items() if "absmax" not in k})

    result = run("check", "w.safetensors", "--select", "KB822")

    assert (result.exit_code, "a packed weight is stored without its absmax" in result.output) == (1, True)


def test_a_base_that_cannot_be_read_is_as_good_as_none(tmp_path):
    base = checkpoint(tmp_path / "base", None)
    (base / "config.json").write_text("{")

    assert read_checkpoint(adapter(tmp_path / "a", None, base)).base is None
    assert read_checkpoint(adapter(tmp_path / "b", None, "\0")).base is None
    assert read_checkpoint(adapter(tmp_path / "c", None, "org/base")).base is None


def test_yaml_that_grows_when_its_aliases_are_followed_is_refused():
    bomb = "load_in_4bit: true\na: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
    )

    with pytest.raises(config_tree.ConfigurationError, match="holds more, or deeper, than a training configuration does"):
        configs.collect("f.yaml", bomb, ".yaml", NEWEST)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "data" / "cases").glob("*")), ids=lambda path: path.name)
def test_what_fuzzing_has_found(path):
    name = path.name.partition("-")[0]
    from benchmarks.robustness import fuzz

    function, _, errors, _ = fuzz.PARSERS[name]

    allowed(lambda: function(path.read_bytes()), *(errors if isinstance(errors, tuple) else (errors,)))
