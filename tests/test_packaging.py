"""The package as it is shipped: public names, the wheel, the hooks."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kbitlint
from kbitlint.upstream.quantization import QUANTIZATIONS

ROOT = Path(__file__).parents[1]


def test_public_names_are_sorted_and_complete():
    names = kbitlint.__all__

    assert names == sorted(names)
    assert all(getattr(kbitlint, name) is not None for name in names)
    assert set(names) <= set(dir(kbitlint))
    with pytest.raises(AttributeError, match="module 'kbitlint' has no attribute 'chekc'"):
        _ = kbitlint.chekc


def test_the_version_is_the_one_in_pyproject():
    text = (ROOT / "pyproject.toml").read_text()

    assert 'version = {attr = "kbitlint.version.VERSION"}' in text


def test_importing_kbitlint_costs_nothing():
    code = (
        "import sys; before = set(sys.modules); import kbitlint\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["kbitlint"]


def test_a_command_imports_only_what_it_uses():
    heavy = {"importlib.metadata", "kbitlint.registry", "kbitlint.suppress", "kbitlint.violation", "torch"}
    code = (
        "import contextlib, os, sys\nfrom kbitlint.cli import main\n"
        "with contextlib.redirect_stdout(open(os.devnull, 'w')), contextlib.suppress(SystemExit):\n    main(sys.argv[1:])\n"
        f"print(*sorted({heavy!r} & set(sys.modules)))"
    )

    def imported(*arguments):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert imported("--version") == imported("--help") == imported("check", "--help") == set()
    assert imported("rules") == heavy - {"importlib.metadata", "torch", "kbitlint.suppress"}


def test_bitsandbytes_is_imported_only_where_its_layers_are_at_hand():
    code = (
        "import sys, kbitlint, torch\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
        "sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=8)\n"
        "for model in (torch.nn.Linear(2, 2), LlamaForCausalLM(LlamaConfig(**sizes))):\n"
        "    print(*(violation.code for violation in kbitlint.check(model).violations))\n"
        "    print('bitsandbytes' in sys.modules, 'peft' in sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert [line.split() for line in done.stdout.splitlines()][1::2] == [["False", "False"]] * 2
    assert all("KB501" in line for line in done.stdout.splitlines()[::2])


@pytest.mark.slow
def test_the_wheel_holds_rules_and_types(tmp_path):
    import shutil

    source = tmp_path / "source"
    built = shutil.ignore_patterns("build")  # at the root only: kbitlint/model has a folder of that name
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")
    shutil.copytree(
        ROOT,
        source,
        ignore=lambda folder, names: ignored(folder, names) | (built(folder, names) if Path(folder) == ROOT else set()),
    )
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True)

    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = {"kbitlint": "kbitlint", "rules": "kbitlint_rules"}
    packages = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in folders.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"kbitlint/py.typed", "kbitlint/output/report.schema.json", "kbitlint/output/html/page.html"} <= packages
    assert {name for name in names if ".dist-info/" not in name} == packages
    assert {name.partition(".dist-info/")[2] for name in names} >= {"licenses/LICENSE", "entry_points.txt"}


def test_every_floor_is_a_version_that_test_oldest_installs():
    """A requirement says what works; ``make test-oldest`` is where that is seen."""
    floors = dict(
        re.findall(r'^    "([a-z0-9-]+)(?:\[\w+\])?>=([\d.]+)[";]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    )
    oldest = dict(re.findall(r"^([a-z0-9-]+)==([\d.]+)$", (ROOT / "constraints-oldest.txt").read_text(), re.MULTILINE))
    development = {"build", "twine", "tomli"}  # tools, and what Python 3.11 has no use for

    assert {name for name in floors if name not in development} == set(oldest)
    for name, version in oldest.items():
        parts = [version.split("."), floors[name].split(".")]
        width = max(map(len, parts))
        assert len({tuple(part + ["0"] * (width - len(part))) for part in parts}) == 1, (name, floors[name], version)


@pytest.mark.parametrize("package", ["torch", "transformers", "accelerate", "bitsandbytes", "peft", "click"])
def test_what_is_tested_spans_the_oldest_and_the_newest_versions(package):
    def pinned(name):
        (found, *_) = re.findall(rf"^{package}==([\d.]+)", (ROOT / name).read_text(), re.MULTILINE)
        return tuple(map(int, found.split(".")))

    oldest, usual, newest = map(pinned, ("constraints-oldest.txt", "constraints.txt", "constraints-newest.txt"))

    assert oldest <= usual <= newest
    assert oldest < newest


def test_the_hooks_run_commands_that_exist():
    hooks = (ROOT / ".pre-commit-hooks.yaml").read_text()

    assert re.findall(r"id: (\S+)", hooks) == ["kbitlint", "kbitlint-fix", "kbitlint-models"]
    light = "kbitlint check --no-run"
    assert re.findall(r"entry: (.+)", hooks) == [light, f"{light} --fix", "kbitlint check"]


@pytest.mark.parametrize(
    ("name", "checked"),
    [
        ("config.json", True),
        ("models/llama/config.json", True),
        ("adapter_config.json", True),
        ("kbitlint.json", True),
        ("train.py", True),
        ("notebooks/train.ipynb", True),
        ("axolotl/qlora.yml", True),
        ("README.md", False),
        ("model.safetensors", False),
    ],
)
def test_the_light_hook_takes_the_files_that_it_can_read(name, checked):
    patterns = re.findall(r"files: '(.+)'", (ROOT / ".pre-commit-hooks.yaml").read_text())

    assert [re.search(pattern, name) is not None for pattern in patterns] == [checked, checked]


def test_the_light_hook_says_nothing_about_files_of_something_else(run, tmp_path):
    names = ("package.json", "ci.yml", "web.py", "plot.ipynb")
    for name in names:
        (tmp_path / name).write_text('{"scripts": {}}' if name != "web.py" else "print()\n")

    result = run("check", *names)

    assert (result.exit_code, result.output) == (0, "nothing in 4 targets to check\n")


def test_the_light_hook_lets_other_peoples_config_json_pass(run, tmp_path):
    (tmp_path / "config.json").write_text('{"name": "a web server"}')

    result = run("check", tmp_path / "config.json")

    assert (result.exit_code, "the file configures neither a model nor an adapter" in " ".join(result.output.split())) == (
        0,
        True,
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"format": 2, "edits": []}', "format: 2 is not 1, the one that kbitlint 0.1.0 reads"),
        ('{"format": 1}', "edits: must be a list"),
        ('{"format": 1, "edits": [3]}', "edits[0]: must be an object"),
        ('{"format": 1, "edits": [{"path": "x"}]}', "edits[0].kind: must name a kind of edit"),
        ('{"format": 1, "edits": [{"kind": "freeze", "path": 3}]}', "edits[0].path: must be a module path"),
        ('{"format": 1, "edits": [{"kind": "freeze", "arguments": 3}]}', "edits[0].arguments: must be an object"),
        (
            '{"format": 1, "edits": [], "quantize": "int3"}',
            f"quantize: 'int3' is none of {', '.join(QUANTIZATIONS)}",
        ),
    ],
)
def test_a_kbitlint_json_that_kbitlint_did_not_write_is_refused(run, tmp_path, content, problem):
    (tmp_path / "kbitlint.json").write_text(content)

    result = run("check", tmp_path / "kbitlint.json")

    assert (result.exit_code, result.stderr) == (2, f"kbitlint: {tmp_path}/kbitlint.json: {problem}\n")


def test_edits_that_do_not_fit_the_model_are_refused(run, tmp_path):
    import shutil

    import tiny

    folder = shutil.copytree(tiny.checkpoint(), tmp_path / "llama")
    (folder / "kbitlint.json").write_text('{"format": 1, "edits": [{"kind": "freeze", "path": "model.nothing"}]}')

    result = run("check", folder)

    assert result.stderr == (
        f"kbitlint: {folder}/kbitlint.json: does not fit this model: "
        "freeze: LlamaForCausalLM has no parameter 'model.nothing'\n"
    )


def test_a_folder_that_was_not_prepared_cannot_be_loaded_prepared():
    import tiny

    with pytest.raises(kbitlint.KbitlintError, match=r"has no kbitlint\.json; `kbitlint --fix .*` writes it"):
        kbitlint.load_prepared(tiny.checkpoint())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    from kbitlint.files import atomic, manifest

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(kbitlint.KbitlintError, match=r"kbitlint.json: cannot be written: No space left on device"):
        manifest.write(tmp_path / manifest.NAME, manifest.Manifest(()), {})

    assert list(tmp_path.iterdir()) == []


def test_python_m_kbitlint_is_the_command():
    done = subprocess.run([sys.executable, "-m", "kbitlint", "--version"], capture_output=True, text=True, check=True)

    assert done.stdout == f"kbitlint {kbitlint.__version__}\n"


@pytest.mark.usefixtures("preloaded")
def test_the_demo_does_the_main_job():
    done = subprocess.run(
        [sys.executable, "-m", "kbitlint", "demo", "--device", "cpu"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "The model was audited, fixed and proven: 56 of 56 adapter parameters learn."


def test_no_file_of_the_product_has_300_lines():
    lengths = {
        path: len(path.read_text().splitlines()) for folder in ("kbitlint", "rules") for path in (ROOT / folder).rglob("*.py")
    }

    assert len(lengths) > 200
    assert {path.name: length for path, length in lengths.items() if length >= 300} == {}
