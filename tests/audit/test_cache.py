"""The cache of a folder's audit: a kept result is the result that the audit would have now."""

from __future__ import annotations

import ast
import gc
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kbitlint
from kbitlint.audit import cache as caches
from kbitlint.audit import sources
from kbitlint.audit.packed import packed, unpacked
from kbitlint.version import VERSION
from kbitlint.violation import Severity

DATA = Path("tests/data/scripts").resolve()
TRAIN = """from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments
from models import prepared
model = prepared(AutoModelForCausalLM.from_pretrained("m", quantization_config=BitsAndBytesConfig(load_in_4bit=True)))
Trainer(model, TrainingArguments("out", bf16=True)).train()
"""
GOOD = """from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
def prepared(model):
    return get_peft_model(prepare_model_for_kbit_training(model), LoraConfig(target_modules="all-linear"))
"""
FROZEN = GOOD.replace('LoraConfig(target_modules="all-linear")', "LoraConfig(inference_mode=True)")


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / ".git").mkdir(parents=True)
    (folder / "train.py").write_text(TRAIN)
    (folder / "models.py").write_text(GOOD)
    (folder / "other.py").write_text("print('no model')\n")
    return folder


@pytest.fixture
def audited(monkeypatch):
    """Return a function that audits a folder with a cache, and returns its report and the files that were audited for it."""

    def audit(folder, **options):
        names = []
        with monkeypatch.context() as patch:
            patch.setattr(sources, "MANY", 10**9)
            patch.setattr(sources, "audit_file", lambda path, name, *rest: names.append(name) or AUDIT(path, name, *rest))
            report = kbitlint.check(str(folder), cache=folder / ".kbitlint_cache", **options)
        assert report.to_dict() == kbitlint.check(str(folder), **options).to_dict()
        return report, names

    return audit


AUDIT = sources.audit_file


def errors(report):
    return [violation.code for violation in report.violations if violation.severity is Severity.ERROR]


def files(folder):
    return sorted(folder.joinpath(".kbitlint_cache", VERSION).glob("*.json"))


def test_a_second_audit_audits_nothing_and_reports_the_same(project, audited):
    first, before = audited(project)
    second, after = audited(project)

    assert (before, after) == (["models.py", "train.py"], [])
    assert second == first
    assert {entry.name for entry in (project / ".kbitlint_cache").iterdir()} == {".gitignore", "CACHEDIR.TAG", VERSION}


def test_a_changed_module_changes_the_verdict_of_what_imports_it(project, audited):
    assert errors(audited(project)[0]) == []

    (project / "models.py").write_text(FROZEN)
    report, names = audited(project)

    assert names == ["models.py", "train.py"]
    assert errors(report) == errors(audited(project)[0]) != []

    (project / "models.py").write_text(GOOD)
    assert errors(audited(project)[0]) == []


def test_a_module_that_takes_the_place_of_another_changes_the_verdict(project, audited):
    folder = project / "jobs"
    folder.mkdir()
    (project / "train.py").rename(folder / "train.py")
    assert errors(audited(project)[0]) == []

    (folder / "models.py").write_text(FROZEN)  # found before the one above
    report, names = audited(project)

    assert errors(report) != []
    assert "jobs/train.py" in names


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "pyproject.toml", "setup.py"])
def test_a_pin_beside_or_above_decides_anew(project, name):
    folder = project / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(TRAIN)
    names = audited_afresh(project)
    assert "a/b/train.py" in names
    assert audited_afresh(project) == []

    (project / name).write_text("transformers==4.38.0\n")
    assert set(names) <= set(audited_afresh(project))

    (project / name).unlink()
    assert set(names) <= set(audited_afresh(project))


def test_every_script_depends_on_the_checkpoint_that_it_names(project, audited):
    text = TRAIN.replace('"m"', '"./base"').replace(", quantization_config=BitsAndBytesConfig(load_in_4bit=True)", "")
    for number in range(3):  # the second one takes its config from memory
        (project / f"run{number}.py").write_text(text)
    (project / "base").mkdir()
    audited(project)

    config = {"model_type": "llama", "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    (project / "base" / "config.json").write_text(json.dumps(config))
    names = audited_afresh(project)

    assert {"run0.py", "run1.py", "run2.py"} <= set(names)


def audited_afresh(folder):
    """Return the files that a new process audits: this one keeps the configs of checkpoints."""
    code = (
        "import sys, kbitlint\nfrom kbitlint.audit import sources\nsources.MANY = 10**9\naudit = sources.audit_file\n"
        "sources.audit_file = lambda path, name, *rest: print(name) or audit(path, name, *rest)\n"
        "kbitlint.check(sys.argv[1], cache=sys.argv[1] + '/.kbitlint_cache')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    return ran.stdout.split()


@pytest.mark.parametrize("name", ["run.sh", "README.md", "scripts/run.sh"])
def test_a_command_that_launches_a_script_decides_anew(project, name):
    audited_afresh(project)
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text("torchrun --nproc_per_node 4 train.py --bf16\n")

    assert "train.py" in audited_afresh(project)

    (project / name).write_text("torchrun --nproc_per_node 8 train.py --fp16\n")
    assert "train.py" in audited_afresh(project)
    assert audited_afresh(project) == []


def test_the_configuration_that_a_command_names_decides_anew(project):
    (project / "run.sh").write_text("accelerate launch --config_file four.yaml train.py\n")
    (project / "four.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 4\n")
    audited_afresh(project)

    (project / "four.yaml").write_text("distributed_type: 'NO'\nnum_processes: 1\n")
    assert "train.py" in audited_afresh(project)


@pytest.mark.parametrize(
    "options",
    [
        {"select": ["KB1"]},
        {"ignore": ["KB204"]},
        {"context": kbitlint.TrainingContext(autocast_dtype="float16")},
        {"limits": kbitlint.limits.Limits(max_steps=500)},
    ],
)
def test_other_settings_have_other_results(project, audited, options):
    audited(project)

    assert audited(project, **options)[1] == ["models.py", "train.py"]
    assert audited(project, **options)[1] == audited(project)[1] == []
    assert len(files(project)) == 2


def test_another_version_or_an_edited_rule_has_other_results(project, audited, monkeypatch):
    audited(project)
    monkeypatch.setattr(caches, "_code", lambda _: iter(["rules/new.py 1 2"]))

    assert audited(project)[1] == ["models.py", "train.py"]


def test_every_file_of_a_rule_pack_is_part_of_the_key(tmp_path, monkeypatch):
    pack = tmp_path / "house_rules"
    pack.mkdir()
    (pack / "__init__.py").write_text("")
    (pack / "one.py").write_text("from kbitlint.rule import Rule\nclass One(Rule):\n    '''Doc.'''\n")
    monkeypatch.syspath_prepend(tmp_path)
    import house_rules.one

    before = set(caches._code((house_rules.one.One(),)))
    (pack / "table.tsv").write_text("a\tb\n")

    assert {line.split()[0] for line in set(caches._code((house_rules.one.One(),))) - before} == {f"{pack}/table.tsv"}
    assert any(line.startswith(f"{Path(kbitlint.__file__).parent}/engine.py ") for line in before)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x00\xff" * 50,
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"asked": [[1, 2]], "files": {}}',
        b'{"asked": [], "files": {"train.py": [null, [7]]}}',
        b'{"asked": [], "files": {"train.py": [["object", "Path", "/"], []]}}',
        b'{"asked": [], "files": {"train.py": [["object", "ScriptAudit"], []]}}',
        b'{"asked": [], "files": 3}',
        b"1" * 10_000,
    ],
)
def test_a_damaged_file_counts_as_none(project, audited, damage):
    first, _ = audited(project)
    (file,) = files(project)
    file.write_bytes(damage)

    second, names = audited(project)

    assert (second, names) == (first, ["models.py", "train.py"])
    assert audited(project)[1] == []


def test_a_half_written_file_counts_as_none(project, audited):
    first, _ = audited(project)
    (file,) = files(project)
    file.write_bytes(file.read_bytes()[:-40])

    assert audited(project) == (first, ["models.py", "train.py"])


@pytest.mark.parametrize("place", [".kbitlint_cache", f".kbitlint_cache/{VERSION}"])
def test_nothing_is_written_through_a_link(project, audited, tmp_path, place):
    away = tmp_path / "away"
    away.mkdir()
    (project / place).parent.mkdir(exist_ok=True)
    (project / place).symlink_to(away)

    assert audited(project)[1] == audited(project)[1] == ["models.py", "train.py"]
    assert list(away.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_keeps_no_result(project, audited):
    (project / ".kbitlint_cache").write_text("mine")

    assert audited(project)[1] == audited(project)[1] == ["models.py", "train.py"]
    assert (project / ".kbitlint_cache").read_text() == "mine"


def test_results_of_other_versions_are_removed_and_files_of_the_user_are_not(project, audited):
    folder = project / ".kbitlint_cache"
    old, mixed, own = folder / "0.0.9", folder / "0.0.8", folder / "notes"
    for place in (old, mixed, own):
        place.mkdir(parents=True)
        (place / f"{'0' * 32}.json").write_text("{}")
    (mixed / "mine.txt").write_text("kept")
    for number in range(40):
        (folder / VERSION).mkdir(exist_ok=True)
        stale = folder / VERSION / f"{number:032x}.json"
        stale.write_text("{}")
        os.utime(stale, (1, 1))

    audited(project)

    assert not old.exists()
    assert [file.name for file in mixed.iterdir()] == ["mine.txt"]
    assert len(list(own.iterdir())) == 1
    assert len(files(project)) == 16
    assert audited(project)[1] == []


def test_runs_at_once_report_the_same_and_leave_a_whole_cache(project, audited):
    for number, path in enumerate(sorted(DATA.glob("*.py"))[:20]):
        (project / f"script{number}.py").write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "kbitlint", "check", ".", "--format", "json", "--exit-zero"]
    ran = [subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate() for process in ran]

    assert {(process.returncode, *answer) for process, answer in zip(ran, answers, strict=True)} == {(0, answers[0][0], "")}
    assert json.loads(answers[0][0])["targets"][0]["violations"]
    assert len(files(project)) == 1
    assert not list(project.rglob("*kbitlint-tmp"))
    assert subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout == answers[0][0]


def test_every_result_is_restored_exactly():
    different = []
    rules = kbitlint.registry.all_rules()
    for path in sorted(DATA.iterdir()):
        if path.suffix in (".py", ".ipynb", ".yaml", ".json", ".sh"):
            audit = sources.audit_file(path, path.name, rules, kbitlint.TrainingContext())
            if unpacked(json.loads(json.dumps(packed(audit)))) != audit:
                different.append(path.name)

    assert not different


def test_what_is_no_result_is_not_kept():
    with pytest.raises(TypeError, match="Path is not kept"):
        packed(Path("x"))
    with pytest.raises(LookupError):
        unpacked(["object", "Path", "/etc/passwd"])


#: calls that ask the file system
ASKING = {"is_file", "is_dir", "exists", "glob", "rglob", "iterdir", "read_text", "read_bytes", "stat", "lstat"} | {
    *("scandir", "listdir", "walk", "open", "isfile", "isdir", "lexists")
}
#: what finds the files of a folder, and reads the settings, before any result is asked for; and tables of kbitlint itself
FINDING = {"source/folders.py", "source/gitignore.py", "context/launchers.py"} | {
    *("upstream/messages.py", "upstream/features.py", "upstream/contracts/diffusers.py")
}
#: the versions of the installed libraries are part of the key
KEYED = {"upstream/versions.py read_text"}


def test_what_a_script_s_audit_asks_the_file_system_is_recorded():
    """A question past ``kbitlint.runtime.content`` would let a kept result outlive its reason."""
    package = Path(kbitlint.__file__).parent
    rooms = [package / "source", package / "upstream", package / "facts", package / "context", package.parent / "rules"]
    paths = [path for room in rooms for path in sorted(room.rglob("*.py"))] + [package / "files" / "local_configs.py"]
    found = []
    for path in paths:
        name = path.relative_to(package.parent).as_posix().removeprefix("kbitlint/")
        for node in ast.walk(ast.parse(path.read_text())) if name not in FINDING else ():
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in ASKING:
                owner = called.value.id if isinstance(called.value, ast.Name) else ""
                if owner not in ("content", "ast", "tokenize", "atomic"):
                    found.append(f"{name}:{node.lineno} {called.attr}")
            elif isinstance(called, ast.Name) and called.id == "open":
                found.append(f"{name}:{node.lineno} open")

    assert [line for line in found if re.sub(r":\d+", "", line) not in KEYED] == []


@pytest.mark.slow
def test_the_second_audit_of_a_package_is_five_times_faster(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MANY", 10**9)
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / ".git").mkdir()
    for number, path in enumerate(sorted(DATA.glob("*.py")) * 3):
        (folder / f"module{number}.py").write_bytes(path.read_bytes())
    assert len(list(folder.glob("*.py"))) > 300
    took, reports = [], []
    gc.collect()
    gc.freeze()  # what other tests left in this process is no part of either audit
    for _ in range(3):
        before = time.process_time()
        reports.append(kbitlint.check(str(folder), cache=folder / ".kbitlint_cache"))
        took.append(time.process_time() - before)
    gc.unfreeze()

    assert reports[0] == reports[1] == reports[2]
    assert min(took[1:]) * 5 < took[0]


@pytest.mark.parametrize(
    ("settings", "options", "place"),
    [
        ("", [], ".kbitlint_cache"),
        ('cache-dir = "build/kept"\n', [], "build/kept"),
        ("", ["--no-cache"], None),
        ('cache-dir = "kept"\n', ["--no-cache"], None),
    ],
)
def test_the_command_line_keeps_results_in_the_project(run, tmp_path, settings, options, place):
    (tmp_path / "pyproject.toml").write_text(f"[tool.kbitlint]\n{settings}")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "train.py").write_text(TRAIN)

    first, second = (run("check", "scripts", "--format", "json", *options) for _ in range(2))

    assert first.output == second.output
    made = {entry.relative_to(tmp_path).as_posix() for entry in tmp_path.rglob(VERSION)}
    assert made == ({f"{place}/{VERSION}"} if place else set())


def test_outside_a_project_nothing_is_written(run, tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)

    run("check", ".")

    assert [entry.name for entry in tmp_path.iterdir()] == ["train.py"]
