"""Everything that can be wrong with what kbitlint is given: one clear line, exit code 2, no traceback."""

from __future__ import annotations

import json

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import kbitlint
from kbitlint.upstream.quantization import QUANTIZATIONS
from kbitlint.violation import Surface


@pytest.fixture
def fails(run):
    """Run the command line and give its one line, after checking that it is one and the only output."""

    def invoke(*arguments):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.count("\n") == 1, result.stderr
        assert "Traceback" not in result.stderr
        return result.stderr.rstrip("\n")

    return invoke


def test_a_folder_without_a_relevant_file_is_clean_with_a_note(run, tmp_path):
    (tmp_path / "empty").mkdir()

    result = run("check", "empty")

    assert (result.exit_code, result.stderr) == (0, "")
    note = "skipped: the folder holds no checkpoint, script, notebook or training configuration"
    assert note in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"model_type": "llama"', "is not valid JSON: Expecting ',' delimiter (line 1, column 23)"),
        (b"\xff\xfe{}", "is not UTF-8 (byte 0)"),
        (b"[1, 2]", "holds a JSON list, not an object"),
        (b"", "is not valid JSON: Expecting value (line 1, column 1)"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
def test_broken_json(fails, tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)

    assert fails("check", tmp_path) == f"kbitlint: {tmp_path}/{name}: {problem}"


@pytest.mark.parametrize("content", ['{"peft_type": "LORA"', "[]"])
def test_a_broken_adapter_config_is_one_line_under_fix_too(fails, tmp_path, content):
    (tmp_path / "adapter_config.json").write_text(content)

    assert fails("--fix", tmp_path, "--device", "cpu").startswith(f"kbitlint: {tmp_path}/adapter_config.json: ")


def test_an_unknown_architecture(fails, tmp_path):
    import transformers

    (tmp_path / "config.json").write_text('{"model_type": "nosuchmodel"}')

    assert fails("check", tmp_path) == (
        f"kbitlint: {tmp_path}: the installed transformers {transformers.__version__} does not know the model type "
        "'nosuchmodel'; upgrade it, or pass --trust-remote-code where the checkpoint brings its own code"
    )


def test_remote_code_is_not_run_without_being_asked_for(fails, tmp_path):
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))

    assert fails("check", tmp_path) == (
        f"kbitlint: {tmp_path}: its config asks for remote code, which is never run unless you pass --trust-remote-code"
    )
    assert not (tmp_path / "ran").exists()


def test_an_adapter_without_a_base(fails, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')

    assert fails("check", tmp_path) == (
        f"kbitlint: {tmp_path}/adapter_config.json: base_model_name_or_path: must name the base model"
    )


def test_an_adapter_that_fits_no_module(fails, tmp_path):
    config = {"peft_type": "LORA", "base_model_name_or_path": str(tiny.checkpoint()), "target_modules": ["nowhere"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))

    assert fails("check", tmp_path).startswith(f"kbitlint: {tmp_path}: PEFT cannot attach this adapter to its base: ")


@pytest.mark.parametrize(
    "target",
    ["./nothing", "/nothing/at/all", "no/such/folder/here", "gone.json", "gone.ipynb", "a/gone.yaml", "gone.yaml", "gone.yml"],
)
def test_a_path_that_does_not_exist(fails, target):
    assert fails("check", target) == f"kbitlint: {target}: there is no such file or folder"


@pytest.mark.parametrize("to", ["gone", "link.py"])
def test_a_link_that_leads_to_none_is_named_as_one(fails, tmp_path, to):
    (tmp_path / "link.py").symlink_to(to)

    assert fails("check", "link.py") == "kbitlint: link.py: there is no such file or folder: it is a link that leads to none"


def test_a_function_of_a_file_that_is_not_there(fails):
    assert fails("check", "gone.py:f") == "kbitlint: gone.py:f: there is no file gone.py"


def test_a_file_of_no_known_kind(fails, tmp_path):
    (tmp_path / "notes.txt").touch()

    assert fails("check", "notes.txt") == (
        "kbitlint: notes.txt: only checkpoint folders and their JSON files, scripts (.py, .ipynb), training configurations "
        "(.yaml, .json), shell scripts (.sh, .slurm), folders and factories (file.py:function) can be checked"
    )


def test_a_hub_id_that_is_not_in_the_cache(fails, monkeypatch, tmp_path):
    assert fails("check", "nobody/nothing") == (
        "kbitlint: nobody/nothing: there is no such folder, and as a Hub id its config is neither in the cache nor "
        "reachable: check the name, the network and HF_HUB_OFFLINE"
    )


def test_a_name_in_a_module_that_is_no_function(fails):
    assert fails("check", "plants:LAYERS") == "kbitlint: plants:LAYERS: LAYERS is a tuple, not a function"


def test_a_severity_that_does_not_exist():
    with pytest.raises(
        kbitlint.KbitlintError, match=r"^fail_on: 'eror' is none of info, warning, error; did you mean 'error'\?$"
    ):
        kbitlint.assert_ready("plants:clean", fail_on="eror")


def test_a_hub_id_cannot_be_fixed(fails):
    assert fails("--fix", "nobody/nothing", "--device", "cpu") == (
        "kbitlint: nobody/nothing: a Hub id cannot be fixed in place: "
        "download it (hf download) or name the factory that loads it"
    )


def test_a_selector_that_selects_nothing(fails):
    assert fails("check", ".", "--select", "KB41").startswith("kbitlint: 'KB41' selects no rule; did you mean 'KB")
    assert fails("check", ".", "--ignore", "low-precision-nrm") == (
        "kbitlint: 'low-precision-nrm' selects no rule; did you mean 'low-precision-norm'?"
    )


def test_a_rule_that_does_not_exist(fails):
    assert fails("explain", "KB999").startswith("kbitlint: no rule is called 'KB999'")


def test_a_device_that_does_not_exist(fails):
    assert fails("--fix", "plants:clean", "--device", "gpu") == (
        "kbitlint: --device 'gpu': names no device that trains k-bit layers: pass cuda, cuda:1, cpu, xpu, mps, hpu, npu"
    )


def test_an_output_file_that_cannot_be_written(fails, tmp_path):
    assert fails("check", "plants:clean", "--output-file", tmp_path / "no" / "where") == (
        f"kbitlint: --output-file {tmp_path}/no/where: cannot be written: No such file or directory"
    )


def test_a_missing_extra_is_said_in_one_line(fails, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')

    assert fails("check", tmp_path) == (
        f"kbitlint: auditing {tmp_path} needs torch, which is not installed: pip install 'kbitlint[model]'"
    )


def test_without_a_target_it_audits_this_folder(run, tmp_path):
    (tmp_path / "train.py").write_text("print()")

    result = run("check")

    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, ".  0 of 1 files concern the training of quantized models")


def test_an_unknown_command_is_explained(run):
    result = run("chekc", "x")

    assert result.exit_code == 2
    assert result.stderr.endswith("Error: there is no command 'chekc'; did you mean 'check'?\n")


def test_one_bad_target_does_not_hide_the_others(run):
    result = run("check", "plants:unprepared", "plants:raises", "--format", "json")

    assert result.exit_code == 2
    assert [target["target"] for target in json.loads(result.stdout)["targets"]] == ["plants:unprepared"]
    assert result.stderr == "kbitlint: plants:raises: the factory raised ValueError: no data\n"


def test_a_python_caller_gets_the_same_line():
    with pytest.raises(kbitlint.KbitlintError, match=r"^a int is neither a target string, nor a model, nor a Trainer$"):
        kbitlint.check(3)
    with pytest.raises(
        kbitlint.KbitlintError,
        match=rf"^quantize: 'int4' is none of {', '.join(QUANTIZATIONS)}$",
    ):
        kbitlint.check("x/y", quantize="int4")
    with pytest.raises(TypeError, match=r"^unknown argument 'slect'; known are cache, context, ignore, inputs, limits, "):
        kbitlint.check("x/y", slect="KB101")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
known_keys = st.sampled_from(["model_type", "peft_type", "quantization_config", "dtype", "torch_dtype", "load_in_4bit", "x"])


@settings(max_examples=3 * settings().max_examples)
@given(content=st.dictionaries(known_keys, json_values, max_size=6) | json_values | st.binary())
def test_the_files_surface_takes_any_json_and_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    try:
        outcome = kbitlint.check(path).crashes
    except kbitlint.KbitlintError as error:
        outcome = str(error)

    assert outcome == () or outcome.startswith(str(path))


@settings(max_examples=3 * settings().max_examples)
@given(text=st.text(max_size=40))
def test_any_target_string_is_parsed_or_refused_in_one_line(text):
    from kbitlint.target import Target, parse

    try:
        outcome = parse(text)
    except kbitlint.KbitlintError as error:
        outcome = str(error)

    assert isinstance(outcome, Target) or outcome


def test_json_that_is_nested_too_deeply(fails, tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)

    assert fails("check", tmp_path / "config.json").startswith(f"kbitlint: {tmp_path}/config.json: is not usable JSON: ")


def test_an_adapter_whose_base_is_nowhere_keeps_the_verdicts_on_its_files(tmp_path):
    config = {"peft_type": "LORA", "base_model_name_or_path": "/home/else/model", "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))

    report = kbitlint.check(str(tmp_path))

    assert report.surfaces == (Surface.FILES,)
    (reason,) = [skip.reason for skip in report.skips if skip.unreached]
    assert reason.startswith("the base of the adapter: /home/else/model: no such folder, and no such model on the Hub")
    assert report.exit_code() == 2


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (("fit", "x", "--gpu", "--lora"), "--gpu", "--lora"),
        (("fit", "x", "--gpu", "24GB", "--optimizer", "--loss", "full"), "--optimizer", "--loss"),
        (("memory", "x", "--lora", "--batch", "--every"), "--batch", "--every"),
        (("check", "--select", "--fix", "x"), "--select", "--fix"),
        (("rehearse", "--memory", "--", "train.py"), "--memory", "--"),
    ],
)
def test_an_option_is_never_the_value_of_another(run, words, option, value):
    result = run(*words)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"Error: Option {option!r} requires a value, and {value!r} is none."


def test_the_options_of_a_rehearsed_script_are_its_own(run):
    result = run("rehearse", "nosuch.py", "--memory", "--rows")

    assert (result.exit_code, result.stderr) == (2, "kbitlint: nosuch.py: there is no such file\n")


def test_a_bare_lora_is_the_default_and_takes_no_target(run):
    folder = tiny.checkpoint()
    asked = ("fit", folder, "--seq-len", "32", "--format", "json")
    bare = run(*asked, "--checkpointing", "--lora", "--gpu", "24GB")
    given = run(*asked, "--checkpointing", "all", "--lora", "r=16,targets=all-linear", "--gpu", "24GB")
    eaten = run("fit", "--gpu", "24GB", "--lora", folder)

    assert (bare.exit_code, bare.stdout) == (0, given.stdout)
    assert eaten.exit_code == 2
    assert eaten.stderr.splitlines()[-1].endswith("is no spec such as r=16,dropout=0.05; a target stands before a bare --lora")
