"""Functions of several folders in one run: each has the modules that it would have alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import transformers  # noqa: F401  # it puts a finder on sys.meta_path, which stays

import kbitlint

SIZES = {"a": 32, "b": 64, "c": 96}
HELPER = """
from transformers import LlamaConfig, LlamaForCausalLM

def made():
    return LlamaForCausalLM(LlamaConfig(hidden_size={size}, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, vocab_size=64))
"""
#: ways in which a script finds what stands beside it
SCRIPTS = {
    "module": ("helper.py", "from helper import made\ndef build():\n    return made()\n"),
    "within the call": ("helper.py", "def build():\n    from helper import made\n    return made()\n"),
    "package": ("parts/helper.py", "import parts.helper\ndef build():\n    return parts.helper.made()\n"),
    "folder that it adds": (
        "src/helper.py",
        (
            "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'src'))\n"
            "from helper import made\ndef build():\n    return made()\n"
        ),
    ),
    "namespace package": ("space/helper.py", "from space import helper\ndef build():\n    return helper.made()\n"),
}


def summaries(result):
    assert result.exit_code in (0, 1), result.output
    return [target["summary"] for target in json.loads(result.stdout)["targets"]]


@pytest.mark.parametrize("way", SCRIPTS)
def test_each_function_of_a_run_has_the_modules_beside_it(run, tmp_path, way):
    helper, script = SCRIPTS[way]
    for name, size in SIZES.items():
        place = tmp_path / name / helper
        place.parent.mkdir(parents=True)
        if way == "package":
            (place.parent / "__init__.py").touch()
        place.write_text(HELPER.format(size=size))
        (tmp_path / name / "train.py").write_text(script)
    targets = [f"{name}/train.py:build" for name in SIZES]
    before = (set(sys.modules), list(sys.path), list(sys.meta_path))

    together = summaries(run("check", *targets, "--no-trace", "--format", "json"))
    alone = [summaries(run("check", target, "--no-trace", "--format", "json"))[0] for target in targets]

    assert together == alone
    assert len(set(together)) == len(SIZES)
    own = ("helper", "parts", "space", "train")
    new = {name for name in set(sys.modules) - before[0] if name.split(".")[0] in own or "kbitlint_function" in name}
    assert (new, list(sys.path), list(sys.meta_path)) == (set(), *before[1:])


def test_a_module_of_the_caller_is_hidden_from_a_function_and_comes_back(tmp_path, monkeypatch):
    other = tmp_path / "other"
    for folder, size in ((other, 32), (tmp_path / "b", 64)):
        folder.mkdir()
        (folder / "helper.py").write_text(HELPER.format(size=size))
    (tmp_path / "b" / "train.py").write_text(SCRIPTS["module"][1])
    monkeypatch.syspath_prepend(str(other))
    import helper  # a notebook's own

    report = kbitlint.check(f"{tmp_path}/b/train.py:build", trace=False)
    restored = sys.modules.pop("helper")

    assert report.summary.startswith("LlamaForCausalLM 37.1K")
    assert restored is helper


@pytest.mark.parametrize("name", ["json", "inspect", "dataclasses", "torch", "helper"])
def test_the_file_of_a_function_displaces_no_module(run, tmp_path, name):
    before = sys.modules.get(name)
    (tmp_path / f"{name}.py").write_text(HELPER.format(size=32))

    found = summaries(run("check", f"{name}.py:made", f"{name}.py:made", "--format", "json"))

    assert found == ["LlamaForCausalLM 14.4K, not quantized"] * 2
    assert sys.modules.get(name) is before


RUNNING = """
import dataclasses, inspect, pickle, sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM

@dataclasses.dataclass
class Sizes:
    hidden: "int" = 32

class Wrapper(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.sizes = Sizes()

    def forward(self, **inputs):
        assert pickle.loads(pickle.dumps(self.sizes)) == self.sizes  # while it is traced
        assert "class Wrapper" in inspect.getsource(type(self))
        assert sys.modules[__name__].Wrapper is Wrapper
        open("traced", "w")
        try:
            import late_canary
        except ImportError:
            pass
        return self.model(**inputs)

def build():
    config = LlamaConfig(hidden_size=Sizes().hidden, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, vocab_size=64)
    return Wrapper(LlamaForCausalLM(config))
"""


def test_classes_of_a_function_are_those_of_a_module_until_its_audit_ends(run, tmp_path):
    (tmp_path / "train.py").write_text(RUNNING)
    (tmp_path / "late_canary.py").write_text("open('ran', 'w')\n")

    result = run("check", "train.py:build", "--format", "json")

    (target,) = json.loads(result.stdout)["targets"]
    assert [skip for skip in target["skips"] if skip["surface"] == "trace" and not skip["code"]] == []
    assert (tmp_path / "traced").exists()
    assert not (tmp_path / "ran").exists()  # the folder is on the path while the function is imported and called


def test_an_extension_module_stays_and_another_of_its_name_is_refused(tmp_path):
    """In a process of its own, because it stays."""
    import _testbuffer  # an extension module of Python's own tests stands for one that people have built

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "built.py").write_text("")
        (tmp_path / name / "train.py").write_text("import built\n" + HELPER.format(size=SIZES[name]))
    suffix = _testbuffer.__file__.partition("_testbuffer")[2]
    for name in ("a", "b"):
        (tmp_path / name / "built.py").unlink()
        (tmp_path / name / f"_testbuffer{suffix}").symlink_to(_testbuffer.__file__)
        (tmp_path / name / "train.py").write_text("import _testbuffer\n" + HELPER.format(size=SIZES[name]))
    code = (
        "import sys, kbitlint\n"
        "print(kbitlint.check('a/train.py:made', trace=False).summary, '_testbuffer' in sys.modules)\n"
        "print(kbitlint.check('a/train.py:made', trace=False).summary)\n"
        "try:\n    kbitlint.check('b/train.py:made', trace=False)\n"
        "except kbitlint.KbitlintError as error:\n    print(error)\n"
    )

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == [
        "LlamaForCausalLM 14.4K, not quantized True",
        "LlamaForCausalLM 14.4K, not quantized",
        (
            f"b/train.py:made: stands beside a module '_testbuffer', and the extension module of that name in {tmp_path}/a is "
            "loaded already: check it alone, or each in its own process with --jobs"
        ),
    ]


def test_what_a_function_puts_into_the_modules_is_taken_out(tmp_path):
    (tmp_path / "train.py").write_text(
        "import sys, types\nsys.modules['made_up'] = types.ModuleType('made_up')\nsys.modules['colorsys'] = None\n"
        "class Finder:\n    @staticmethod\n    def find_spec(*_):\n        return None\n"
        "sys.meta_path.append(Finder)\nsys.path.append('/nowhere')\n" + HELPER.format(size=32)
    )
    import colorsys

    before = (list(sys.path), list(sys.meta_path))

    kbitlint.check(f"{tmp_path}/train.py:made", trace=False)

    assert ("made_up" in sys.modules, sys.modules["colorsys"] is colorsys) == (False, True)
    assert (list(sys.path), list(sys.meta_path)) == before
