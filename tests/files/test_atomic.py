"""Files are written whole or not at all, one fix at a time works in a folder, and nothing is written elsewhere."""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
from pathlib import Path

import pytest
from script_cases import SCRIPT

import kbitlint
from kbitlint.files import atomic, manifest


def refusing(code):
    def call(*_, **__):
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("call", ["open", "fsync", "chown", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_call_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, call, code):
    path = tmp_path / "a"
    path.write_text("old")
    where = Path if call == "replace" else atomic.os
    monkeypatch.setattr(where, call, refusing(code))

    if call == "chown":  # who owns the file is not worth losing what is written
        atomic.replace(path, b"new")
    else:
        with pytest.raises(OSError, match=os.strerror(code)):
            atomic.replace(path, b"new")
    monkeypatch.undo()

    assert ([entry.name for entry in tmp_path.iterdir()], path.read_text()) == (["a"], "new" if call == "chown" else "old")


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_permissions_stay(tmp_path, mode):
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(mode)

    atomic.replace(path, b"new")

    assert (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) == (mode, b"new")


def test_a_new_file_gets_what_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        atomic.replace(tmp_path / "a", b"new")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")

    atomic.replace(tmp_path / "link", b"new")

    assert ((tmp_path / "link").is_symlink(), (tmp_path / "real").read_bytes()) == (True, b"new")


def test_a_preparation_that_is_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "kbitlint.json").symlink_to("elsewhere")

    manifest.write(tmp_path / "kbitlint.json", manifest.Manifest(()), {})

    assert ((tmp_path / "elsewhere").read_text(), (tmp_path / "kbitlint.json").is_symlink()) == ("mine", False)
    assert manifest.read(tmp_path) == manifest.Manifest(())


def test_links_in_a_circle_are_an_error_of_the_file(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(OSError, match=r"[Ss]ymbolic link"):
        atomic.replace(tmp_path / "a", b"new")


def test_what_is_no_file_is_written_to_as_it_stands(run, tmp_path):
    (tmp_path / "t.py").write_text("x = 1\n")

    assert run("check", "t.py", "--output-file", "/dev/null").exit_code == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    dead, living, other = (tmp_path / f".{name}.kbitlint-tmp" for name in ("a[1].00", "a[1].01", "b.00"))
    for path in (dead, living, other):
        path.write_text("half")
    with living.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        atomic.replace(tmp_path / "a[1]", b"new")

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a[1]", living.name, other.name])


# ------------------------------------------------------------------------------------------------ one fix at a time


def test_a_second_fix_of_a_folder_is_told_to_wait_and_a_check_is_not(run, tmp_path):
    (tmp_path / "t.py").write_text(SCRIPT)

    with atomic.alone(tmp_path, "."):
        second, check = run("--fix", "."), run("check", ".")

    line = "kbitlint: .: another kbitlint is fixing . at this moment; start again when it is done\n"
    assert (second.exit_code, second.stdout, second.stderr) == (2, "", line)
    assert ("KB401" in check.stdout, check.stderr, (tmp_path / "t.py").read_text()) == (True, "", SCRIPT)
    assert "fixed with 1 edit" in run("--fix", ".").stdout


def test_two_scripts_of_a_folder_are_fixed_at_once(run, tmp_path):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(SCRIPT)

    with atomic.alone(tmp_path / "a.py", "a.py"):
        assert run("--fix", "b.py").exit_code == 0
        assert run("--fix", "a.py").exit_code == 2


def test_a_file_that_an_editor_saves_during_the_fix_is_left_as_it_is(run, tmp_path, monkeypatch):
    from kbitlint.fixes import run as fixes_run

    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(SCRIPT)
    plan = fixes_run.mend_target

    def saved_meanwhile(*arguments):
        mended = plan(*arguments)
        (tmp_path / "b.py").write_text("saved = 1\n")
        return mended

    monkeypatch.setattr(fixes_run, "mend_target", saved_meanwhile)
    result = run("--fix", ".")

    line = "kbitlint: b.py: was changed by something else while it was being fixed; it was left as it is now\n"
    assert (result.exit_code, result.stderr) == (2, line)
    assert ((tmp_path / "a.py").read_text(), (tmp_path / "b.py").read_text()) == (SCRIPT, "saved = 1\n")


# ------------------------------------------------------------------------------------------------ nothing elsewhere


def test_a_link_out_of_a_checkpoint_is_not_written_through(run, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    bits = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_compute_dtype": "float32"}
    text = json.dumps({"model_type": "llama", "dtype": "bfloat16", "quantization_config": bits})
    (tmp_path / "shared.json").write_text(text)
    (folder / "config.json").symlink_to(tmp_path / "shared.json")

    result = run("--fix", "model/config.json", "--unsafe-fixes")

    line = "kbitlint: model/config.json: leads out of the folder, and is not written to; replace the link by the file\n"
    assert (result.exit_code, result.stderr, (tmp_path / "shared.json").read_text()) == (2, line, text)


def test_a_script_that_is_a_link_out_of_the_folder_is_fixed_where_it_is_named_only(run, tmp_path):
    (tmp_path / "shared.py").write_text(SCRIPT)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").symlink_to(tmp_path / "shared.py")

    result = run("--fix", "project")

    assert ("KB401" in result.stdout, (tmp_path / "shared.py").read_text()) == (True, SCRIPT)
    assert "train.py leads out of the folder, and is fixed where it is named only" in " ".join(result.stdout.split())
    assert "fixed with 1 edit" in run("--fix", "project/train.py").stdout
    assert (tmp_path / "shared.py").read_text() != SCRIPT


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "\ud800", "..", ".", ""])
def test_an_index_may_hold_names_that_no_file_has(tmp_path, name):
    from kbitlint.files.checkpoint import read_checkpoint

    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a.weight": name}}))

    facts = read_checkpoint(tmp_path)

    assert [item.file for item in (*facts.unread, *facts.damages)][:1] in ([name], ["model.safetensors.index.json"])
    assert dict(facts.tensors) == {}


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_kernel_of_the_hub_is_code_that_is_not_run(run, tmp_path, key):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 8, key: "evil/kernel"}))

    result = run("check", ".")

    line = (
        f"kbitlint: config.json: {key}: asks for the kernel 'evil/kernel' of the Hub, code that is never run unless you pass "
        "--trust-remote-code\n"
    )
    assert (result.exit_code, result.stderr) == (2, line)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: 1000000000; more than 10000"),
        ({"num_labels": 10**9}, "num_labels: 1000000000; more than 1000000"),
        ({"text_config": {"num_local_experts": 10**6}}, "text_config.num_local_experts: 1000000; more than 10000"),
        ({"depths": [1, 10**8]}, "depths: 100000000; more than 10000"),
    ],
)
def test_a_config_of_more_than_can_be_built_is_refused(run, tmp_path, values, named):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **values}))

    result = run("check", ".")

    assert (result.exit_code, result.stderr) == (2, f"kbitlint: .: its config asks for {named} are not built\n")


def test_architectures_may_name_nothing_but_models(run, tmp_path):
    config = {"model_type": "llama", "architectures": ["pipeline", "AutoModelForCausalLM", "logging"], "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 64, "vocab_size": 8, "num_attention_heads": 4}))

    assert "LlamaForCausalLM" in run("check", ".").stdout


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_a_pickled_adapter_is_not_loaded(run, tmp_path, name):
    import pickle

    import tiny

    config = {"peft_type": "LORA", "base_model_name_or_path": str(tiny.checkpoint()), "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / name).write_bytes(pickle.dumps(print))

    result = run("--fix", ".", "--quantize", "nf4", "--device", "cpu")

    line = "kbitlint: .: the adapter's weights are pickled, and those are never loaded; convert them to safetensors\n"
    assert (result.exit_code, result.stderr) == (2, line)


def test_an_adapter_that_cannot_be_loaded_is_one_line(run, tmp_path):
    import tiny

    config = {"peft_type": "LORA", "base_model_name_or_path": str(tiny.checkpoint()), "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x" * 100)

    result = run("--fix", ".", "--quantize", "nf4", "--device", "cpu")

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("kbitlint: .: the adapter cannot be loaded: ")


def test_pipes_in_a_folder_are_not_waited_for(run, tmp_path):
    (tmp_path / "t.py").write_text(SCRIPT)
    for name in (".gitignore", "requirements.txt", "a.yaml", "pyproject.toml"):
        os.mkfifo(tmp_path / name)

    assert "KB401" in run("check", ".").stdout
    assert [violation.code for violation in kbitlint.check(tmp_path / "t.py").violations] == ["KB401"]


# -------------------------------------------------------------------------------- what replacing a file would lose


@pytest.fixture(params=["script", "checkpoint"])
def fixable(request, tmp_path):
    """A file that --fix changes, and what names it."""
    if request.param == "script":
        (tmp_path / "train.py").write_text(SCRIPT)
        return tmp_path / "train.py", "train.py"
    path = tmp_path / "config.json"
    quantization = {"load_in_4bit": True, "quant_method": "bitsandbytes", "bnb_4bit_compute_dtyp": "bfloat16"}
    path.write_text(json.dumps({"model_type": "llama", "dtype": "bfloat16", "quantization_config": quantization}))
    return path, "config.json"


def refused(run, path, name):
    """The line with which --fix refuses; the file and its folder are as they were."""
    before = path.read_bytes(), path.stat(), sorted(path.parent.iterdir())
    result = run("--fix", "--unsafe-fixes", name)
    assert (path.read_bytes(), path.stat(), sorted(path.parent.iterdir())) == before
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


@pytest.mark.parametrize("mode", [0o444, 0o555, 0o400])
def test_a_file_without_write_permission_is_not_written_by_root_either(run, fixable, mode):
    path, name = fixable
    path.chmod(mode)

    assert refused(run, path, name) == f"kbitlint: {name}: cannot be written: it has no write permission\n"


def test_hard_links_are_not_parted(run, fixable, tmp_path):
    path, name = fixable
    (tmp_path / "elsewhere").mkdir()
    os.link(path, tmp_path / "elsewhere" / "other")

    assert refused(run, path, name) == (
        f"kbitlint: {name}: cannot be written: it has 2 names (hard links), which replacing it would part; write a copy\n"
    )


def test_one_file_that_cannot_be_replaced_keeps_all_of_a_folder_as_they_are(run, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.py").write_text(SCRIPT)
    (tmp_path / "c.py").chmod(0o444)

    result = run("--fix", ".")

    assert (result.exit_code, {path.read_text() for path in tmp_path.iterdir()}) == (2, {SCRIPT})
    assert result.stderr == "kbitlint: c.py: cannot be written: it has no write permission\n"


@pytest.mark.parametrize("output", [[], ["--output", "other/kbitlint.json"]], ids=["beside", "elsewhere"])
def test_a_preparation_that_cannot_be_written_keeps_the_config_as_it_is(run, tmp_path, output):
    quantization = {"load_in_4bit": True, "quant_method": "bitsandbytes", "bnb_4bit_compute_dtyp": "bfloat16"}
    text = json.dumps({"model_type": "llama", "dtype": "bfloat16", "quantization_config": quantization})
    (tmp_path / "config.json").write_text(text)
    place = tmp_path / (output[-1] if output else "kbitlint.json")
    place.parent.mkdir(exist_ok=True)
    place.write_text('{"format": 1, "edits": []}')
    place.chmod(0o444)

    result = run("--fix", "--unsafe-fixes", ".", "--device", "cpu", *output)

    named = place.relative_to(tmp_path)
    assert (result.exit_code, result.stderr) == (2, f"kbitlint: {named}: cannot be written: it has no write permission\n")
    assert ((tmp_path / "config.json").read_text(), place.read_text()) == (text, '{"format": 1, "edits": []}')


def with_attribute(path, name, value):
    try:
        os.setxattr(path, name, value)
    except (AttributeError, OSError) as error:
        pytest.skip(f"no extended attributes here: {error}")


#: user::rw- user:1:r-- group::r-- mask::r-- other::---, as the kernel keeps it
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0xFFFFFFFF), (2, 4, 1), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)


@pytest.mark.parametrize(("name", "value"), [("user.origin", b"\0mine"), ("system.posix_acl_access", ACL)])
def test_extended_attributes_and_access_lists_stay(run, fixable, name, value):
    path, target = fixable
    with_attribute(path, name, value)
    before = path.read_bytes(), path.stat().st_mode

    run("--fix", "--unsafe-fixes", target)

    assert (os.getxattr(path, name), path.stat().st_mode) == (value, before[1])
    assert path.read_bytes() != before[0]


def test_the_access_list_that_a_folder_gives_to_new_files_is_not_added(run, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    with_attribute(tmp_path, "system.posix_acl_default", ACL)

    assert run("--fix", "train.py").exit_code == 0
    assert os.listxattr(tmp_path / "train.py") == []


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("setxattr", "its attribute user.origin would be lost (Operation not supported)"),
        ("chown", "it belongs to another user or group, which replacing it would change"),
    ],
)
def test_what_cannot_be_kept_is_not_lost(run, fixable, monkeypatch, call, problem):
    path, name = fixable
    with_attribute(path, "user.origin", b"mine")
    if call == "chown":
        if os.geteuid():
            pytest.skip("only root can give a file away")
        os.chown(path, 1234, 1234)
    monkeypatch.setattr(atomic.os, call, refusing(errno.ENOTSUP))

    assert refused(run, path, name) == f"kbitlint: {name}: cannot be written: {problem}\n"


def test_a_pipe_that_nothing_reads_is_not_waited_for(run, tmp_path):
    (tmp_path / "t.py").write_text("x = 1\n")
    os.mkfifo(tmp_path / "pipe")

    result = run("check", "t.py", "--output-file", "pipe")

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("kbitlint: --output-file pipe: cannot be written: ")


# ------------------------------------------------------------------------------ the report does not replace an input


@pytest.fixture
def inputs(tmp_path):
    """A folder with everything that a run can read."""
    (tmp_path / "train.py").write_text(SCRIPT)
    for name, text in {
        "lib/other.py": SCRIPT,
        "lib/n.ipynb": json.dumps({"cells": [{"cell_type": "code", "source": SCRIPT}]}),
        "lib/axolotl.yml": "base_model: a\nload_in_4bit: true\nadapter: qlora\n",
        "kbitlint-baseline.json": '{"version": 2, "files": {}}',
        "accelerate.yaml": "distributed_type: MULTI_GPU\nnum_processes: 2\n",
        "base/config.json": '{"model_type": "llama"}',
        "base/model.safetensors": "",
        "adapter/adapter_config.json": '{"peft_type": "LORA", "base_model_name_or_path": "base"}',
        "pyproject.toml": '[tool.kbitlint]\nbaseline = "kbitlint-baseline.json"\ntraining = "accelerate.yaml"\n',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize("through", ["its name", "a link", "a hard link"])
@pytest.mark.parametrize(
    ("targets", "read"),
    [
        (["train.py"], "train.py"),
        (["lib", "train.py"], "train.py"),
        (["train.py:build"], "train.py"),
        (["."], "lib/other.py"),
        (["."], "lib/n.ipynb"),
        (["."], "lib/axolotl.yml"),
        (["base"], "base/config.json"),
        (["base/config.json"], "base/config.json"),
        (["base"], "base/model.safetensors"),
        (["adapter"], "adapter/adapter_config.json"),
        (["adapter"], "base/config.json"),
        (["train.py"], "kbitlint-baseline.json"),
        (["train.py"], "accelerate.yaml"),
        (["train.py"], "pyproject.toml"),
    ],
)
def test_a_report_does_not_take_the_place_of_an_input(run, inputs, through, targets, read):
    output = inputs / read
    if through != "its name":
        (inputs / "reports").mkdir()
        output = inputs / "reports" / "out"
        output.symlink_to(inputs / read) if through == "a link" else os.link(inputs / read, output)
    before = {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()}

    device = ["--device", "cpu"] if targets[0] in {"base", "adapter", "train.py:build"} else []  # others refuse the option
    for command in (["check", *targets], ["check", "--fix", *device, *targets]):
        result = run(*command, "--output-file", output)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"kbitlint: --output-file {output}: is ")
        assert result.stderr.endswith("which this run reads or writes; name another file\n")

    assert {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()} == before


def test_a_memory_table_does_not_take_the_place_of_an_input(run, inputs):
    result = run("memory", "base", "--output-file", "base/config.json")

    assert (result.exit_code, "which this run reads" in result.stderr) == (2, True)
    assert (inputs / "base/config.json").read_text() == '{"model_type": "llama"}'


@pytest.mark.parametrize("name", ["report.json", "lib/report.json", "lib/notes.yaml", "report.html"])
def test_a_report_takes_the_place_of_an_earlier_one(run, inputs, name):
    for _ in range(2):
        result = run("check", ".", "--output-file", name, "--format", "json")
        assert (result.exit_code, result.stderr) == (1, "")

    assert json.loads((inputs / name).read_text())["targets"]
