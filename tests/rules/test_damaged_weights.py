from __future__ import annotations

import json

from checkpoint_cases import checkpoint, findings, floats, save, skipped


def test_a_file_that_broke_off(tmp_path):
    folder = checkpoint(tmp_path, floats("a"))
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1])

    assert findings("KB824", folder) == [("error", "model.safetensors", "'a.weight' lies outside of the file")]


def test_a_pointer_in_place_of_the_file(tmp_path):
    folder = checkpoint(tmp_path, None)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")

    ((severity, place, message),) = findings("KB824", folder)

    assert (severity, place, message.startswith("the header is said to be")) == ("error", "model.safetensors", True)


def index(folder, weights):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


def test_an_index_that_names_what_is_not_there(tmp_path):
    folder = checkpoint(tmp_path, None)
    save(folder / "one.safetensors", floats("a"))

    index(folder, {"a.weight": "one.safetensors", "b.weight": "two.safetensors"})
    assert findings("KB824", folder)[0][2] == "names two.safetensors, which is not there"

    index(folder, {"a.weight": "one.safetensors", "b.weight": "one.safetensors"})
    assert findings("KB824", folder)[0][2] == "places b.weight in one.safetensors, which does not hold it"

    index(folder, ["a.weight"])
    assert findings("KB824", folder)[0][2] == "weight_map: must map names of tensors to names of files"

    index(folder, {"a.weight": "one.safetensors"})
    assert findings("KB824", folder) == []


def test_without_headers_nothing_is_said(tmp_path):
    assert skipped("KB824", checkpoint(tmp_path, None)) == ["no safetensors headers here"]
