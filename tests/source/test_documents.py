"""Scripts, notebooks and folders as targets: what is read, what is said of it, what is written back."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from script_cases import ADAPTED, IMPORTS, LOADED, PREPARED, RANKED, TRAINED

import kbitlint
from kbitlint.audit import scripts, sources
from kbitlint.files import atomic
from kbitlint.source import documents
from kbitlint.upstream.quantization import QUANTIZATION_ARGUMENTS

SCRIPTS = Path(__file__).parents[1] / "data" / "scripts"
PREPARE = "model = prepare_model_for_kbit_training(model)\n"
FAULTY = IMPORTS + LOADED + PREPARE + ADAPTED + RANKED
CLEAN = IMPORTS + LOADED + PREPARED + ADAPTED + RANKED


def test_a_script_is_checked_and_repaired_through_the_command_line(run, tmp_path):
    (tmp_path / "train.py").write_text(FAULTY)

    before, shown, fixed, after = (
        run(*arguments)
        for arguments in (("check", "train.py"), ("check", "--diff", "train.py"), ("--fix", "train.py"), ("check", "train.py"))
    )

    assert [result.exit_code for result in (before, shown, fixed, after)] == [1, 1, 0, 0]
    assert "train.py:10 prepare_model_for_kbit_training" in before.output
    assert "+model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs" in shown.output
    assert "fixed with 1 edit in 1 pass" in fixed.output
    assert (tmp_path / "train.py").read_text() == CLEAN


def test_python_may_ask_too(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(FAULTY)

    assert [v.code for v in kbitlint.check(str(path)).violations] == ["KB401"]
    assert len(kbitlint.plan(str(path))) == 1
    assert kbitlint.fix(str(path)).violations == ()


def test_a_script_about_something_else_is_nothing_to_check(run, tmp_path):
    (tmp_path / "web.py").write_text("print('hello')\n")

    result = run("check", "web.py")

    assert (result.exit_code, "nothing here loads, prepares or trains a quantized model" in result.output) == (0, True)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.py", b"from peft import PeftModel\ndef f(:\n", "is not valid Python: invalid syntax (line 2)"),
        ("a.py", b"# PeftModel \xff\n", "has no usable encoding: invalid or missing encoding declaration"),
        ("a.py", b"# -*- coding: nonsense -*-\n# PeftModel\n", "has no usable encoding: unknown encoding: nonsense"),
        ("a.py", b"# -*- coding: undefined -*-\n# PeftModel\n", "is not undefined"),
        ("a.py", b"# -*- coding: punycode -*-\n# PeftModel\n", "is not punycode"),
        ("a.ipynb", b'{"cells": PeftModel', "is not valid JSON: a value is expected (line 1, column 11)"),
        ("a.ipynb", b'{"PeftModel": []}', "cells: must be a list, as in nbformat 4"),
        ("a.yaml", b"load_in_4bit: [\n", "is not valid YAML: did not find expected node content (line 2, column 1)"),
        ("a.json", b'{"load_in_4bit": tru}', "is not valid JSON: a value is expected (line 1, column 18)"),
    ],
)
def test_bad_input_is_one_clear_line(run, tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)

    result = run("check", name)

    assert (result.exit_code, result.stderr) == (2, f"kbitlint: {name}: {problem}\n")


def test_what_is_too_large_is_no_script(run, tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text(FAULTY)
    monkeypatch.setattr(documents, "MAX_BYTES", 10)

    assert "is larger than 0 MiB; this is no script" in run("check", "a.py").stderr


def test_what_cannot_be_read_or_written_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(kbitlint.KbitlintError, match="cannot be read: No such file or directory"):
        documents.read(tmp_path / "gone.py")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    path = tmp_path / "train.py"
    path.write_text(FAULTY)
    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(kbitlint.KbitlintError, match=r"train\.py: cannot be written: No space left on device"):
        kbitlint.fix(str(path))

    assert path.read_text() == FAULTY
    assert [item.name for item in tmp_path.iterdir()] == ["train.py"]


def test_integers_that_python_does_not_print_in_decimal_stop_no_fix(run, tmp_path):
    (tmp_path / "train.py").write_text(FAULTY + f"seed = 0x{'f' * 20_000}\n")

    result = run("--fix", "train.py")

    assert (result.exit_code, (tmp_path / "train.py").read_text()) == (0, CLEAN + f"seed = 0x{'f' * 20_000}\n")


def test_line_ends_encoding_and_permissions_stay(tmp_path):
    path = tmp_path / "train.py"
    text = "# -*- coding: latin-1 -*-\n# caf\xe9\n" + FAULTY.replace("(model)\n", "(\n    model,\n)\n")
    path.write_bytes(text.replace("\n", "\r\n").encode("latin-1"))
    path.chmod(0o755)

    kbitlint.fix(str(path))

    expected = text.replace("    model,\n", '    model,\n    gradient_checkpointing_kwargs={"use_reentrant": False},\n')
    assert path.read_bytes() == expected.replace("\n", "\r\n").encode("latin-1")
    assert path.stat().st_mode & 0o777 == 0o755


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    real, link = tmp_path / "real.py", tmp_path / "link.py"
    real.write_text(FAULTY)
    link.symlink_to(real)

    kbitlint.fix(str(link))

    assert link.is_symlink()
    assert real.read_text() == CLEAN


# ------------------------------------------------------------------------------------------------------- notebooks


def test_a_notebook_is_repaired_in_its_cell_and_the_rest_stays_byte_for_byte(tmp_path):
    path = tmp_path / "n.ipynb"
    before = (SCRIPTS / "notebook_classic.ipynb").read_text()
    path.write_text(before)

    report = kbitlint.check(str(path))
    kbitlint.fix(str(path))

    assert [str(v.at) for v in report.violations] == [f"{path}:1 cell 5 prepare_model_for_kbit_training"]
    kwargs = '(model, gradient_checkpointing_kwargs={\\"use_reentrant\\": False})'
    assert path.read_text() == before.replace("kbit_training(model)", f"kbit_training{kwargs}")


@pytest.mark.parametrize(
    "source", [["m.train()\n", "prepare_model_for_kbit_training(m)"], "prepare_model_for_kbit_training(m)"]
)
def test_sources_of_cells_are_lists_or_texts(tmp_path, source):
    path = tmp_path / "n.ipynb"
    cells = [{"cell_type": "code", "source": source}, {"cell_type": "code"}, {"cell_type": "code", "source": [1]}, 3]
    path.write_text(json.dumps({"cells": cells}))

    assert {v.code for v in kbitlint.check(str(path)).violations} == {"KB401"}
    kbitlint.fix(str(path))
    assert kbitlint.check(str(path)).violations == ()
    assert type(json.loads(path.read_text())["cells"][0]["source"]) is type(source)


def test_a_cell_that_is_no_python_does_not_hide_the_others(tmp_path):
    path = tmp_path / "n.ipynb"
    sources = [
        "this is no Python (",
        "%%html\n<b>PeftModel</b>",
        "files = !ls \\\n  -l\n!pip install \\\n  peft",
        "help?",
        PREPARE,
    ]
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": source} for source in sources]}))

    (violation,) = kbitlint.check(str(path)).violations

    assert (violation.code, violation.at.path, violation.at.line) == ("KB401", "cell 5 prepare_model_for_kbit_training", 1)


# --------------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def repository(tmp_path):
    """A folder with a faulty script, ignored ones, and files that concern nothing."""
    for name, text in {
        "train.py": FAULTY,
        "lib/model.py": CLEAN,
        "lib/web.py": "print('hello')\n",
        "lib/broken.py": "from peft import PeftModel\ndef f(:\n",
        "old/train.py": FAULTY,
        "lib/generated/train.py": FAULTY,
        "lib/generated/kept.py": FAULTY,
        ".hidden/train.py": FAULTY,
        "node_modules/train.py": FAULTY,
        ".gitignore": "/old/\n",
        "lib/.gitignore": "generated/*\n!generated/kept.py\n",
        "config.yaml": "name: web\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / ".git").mkdir()
    return tmp_path


def test_a_folder_is_walked_as_git_sees_it(run, repository):
    result = run("check", ".", "--format", "json")

    (target,) = json.loads(result.stdout)["targets"]
    assert [(v["at"]["file"], v["code"]) for v in target["violations"]] == [
        ("lib/generated/kept.py", "KB401"),
        ("train.py", "KB401"),
    ]
    assert target["summary"] == "3 of 6 files concern the training of quantized models"
    assert [skip["reason"] for skip in target["skips"]] == ["lib/broken.py is not valid Python: invalid syntax (line 2)"]
    assert result.exit_code == 1


def test_links_in_a_circle_and_folders_that_may_not_be_listed_hide_no_other_file(run, repository, monkeypatch):
    (repository / "circle.py").symlink_to("circle.py")
    (repository / "gone.py").symlink_to("nowhere.py")
    (repository / "closed").mkdir()
    before, scandir = json.loads(run("check", ".", "--format", "json").stdout)["targets"][0], os.scandir

    def refused(folder):
        if Path(folder).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    (after,) = json.loads(run("check", ".", "--format", "json").stdout)["targets"]
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    alone = run("check", "closed")

    assert [(v["at"]["file"], v["code"]) for v in after["violations"]] == [
        ("lib/generated/kept.py", "KB401"),
        ("train.py", "KB401"),
    ]
    new = [skip["reason"] for skip in after["skips"] if skip not in before["skips"]]
    assert new == ["./closed cannot be listed: Permission denied"]
    assert (alone.exit_code, alone.stderr) == (2, "kbitlint: closed: cannot be listed: Permission denied\n")


def test_checkpoints_in_a_repository_are_checked_too(tmp_path):
    for name, text in {
        "base/config.json": '{"model_type": "llama", "quantization_config": {"quant_method": "vptq"}}',
        "adapter/adapter_config.json": '{"peft_type": "LORA", "inference_mode": true}',
        "web/config.json": '{"quantization_config": 1}',
        "bad/config.json": '{"quantization_config": ',
        "train.py": CLEAN,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    report = kbitlint.check(str(tmp_path))

    assert [(v.code, str(v.at)) for v in report.violations] == [
        ("KB202", "adapter/adapter_config.json inference_mode"),
        ("KB524", "base/config.json quantization_config.quant_method"),
    ]
    assert [skip.reason.partition(" is")[0] for skip in report.skips] == ["bad/config.json"]


def test_a_folder_inside_a_repository_obeys_the_files_above(run, repository):
    nothing = run("check", "old")
    assert (nothing.exit_code, nothing.stderr) == (0, "")
    assert "the folder holds no checkpoint, script, notebook or training\n  configuration" in nothing.stdout
    assert "1 file" in run("check", "lib/generated").output


def test_a_folder_is_repaired_and_what_cannot_be_read_is_left(run, repository):
    result = run("--fix", ".")

    assert result.exit_code == 0
    assert (repository / "train.py").read_text() == (repository / "lib/generated/kept.py").read_text() == CLEAN
    assert (repository / "old/train.py").read_text() == FAULTY


def test_many_files_are_checked_in_parallel_with_the_same_result(tmp_path, monkeypatch):
    for number in range(9):
        (tmp_path / f"train{number}.py").write_text(FAULTY)
    alone = kbitlint.check(str(tmp_path))
    monkeypatch.setattr(sources, "MANY", 2)
    monkeypatch.setattr(sources.os, "cpu_count", lambda: 2)

    assert kbitlint.check(str(tmp_path)) == alone
    assert len(alone.violations) == 9


def test_a_file_that_vanishes_is_a_skip(tmp_path):
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "train.py").write_text(FAULTY)

    result = scripts.audit_file(tmp_path / "gone.py", "gone.py", (), kbitlint.TrainingContext())

    assert [skip.reason for skip in result.skips] == ["gone.py cannot be read: No such file or directory"]
    assert sources._worth(tmp_path / "gone.py")
    assert len(kbitlint.check(str(tmp_path)).violations) == 1


def test_what_is_silenced_is_counted(run, tmp_path):
    (tmp_path / "train.py").write_text(FAULTY.replace("(model)\n", "(model)  # kbitlint: ignore[KB401] measured\n"))

    result = run("check", "train.py")

    assert (result.exit_code, "1 silenced by comments" in result.output) == (0, True)


# ------------------------------------------------------------------------------------------------------- start-up


@pytest.mark.parametrize("target", ["qlora_trainer_classic.py", "notebook_classic.ipynb", "axolotl_qlora.yaml", "."])
def test_checking_and_fixing_source_imports_no_torch(target, tmp_path):
    import shutil

    folder = shutil.copytree(SCRIPTS, tmp_path / "scripts")
    code = (
        "import sys\n"
        f"sys.argv = ['kbitlint', '--fix', '--unsafe-fixes', {str(folder / target)!r}]\n"
        "from kbitlint.cli import main\n"
        "try: main()\n"
        "except SystemExit as leave: print(leave.code)\n"
        "print(sorted({'torch', 'transformers', 'peft', 'huggingface_hub', 'numpy', 'accelerate'} & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert done.stdout.splitlines()[-2] in ("0", "1"), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("pin", "found"),
    [
        ("transformers==4.38.2", ["KB401"]),
        ("transformers~=4.40", ["KB401"]),
        ("transformers[torch]<5", ["KB401"]),
        ("transformers>=5", []),
        ("peft==0.11", []),
    ],
)
def test_a_project_that_pins_an_older_version_is_judged_by_it(tmp_path, pin, found):
    enabled = "model.gradient_checkpointing_enable()\nmodel.enable_input_require_grads()\n"
    (tmp_path / "train.py").write_text(IMPORTS + LOADED + enabled + ADAPTED + TRAINED)
    (tmp_path / "requirements.txt").write_text(f"torch\n{pin}\n")

    assert [v.code for v in kbitlint.check(str(tmp_path / "train.py"), select="KB401").violations] == found


# ------------------------------------------------------------------------------------------------------- line ends

ENDS = {"CRLF": ["\r\n"], "CR": ["\r"], "mixed": ["\r\n", "\n", "\r"], "mostly LF": ["\n", "\n", "\n", "\r\n"]}
MOVED = IMPORTS + LOADED + ADAPTED + PREPARED + TRAINED  # what KB202 moves


def with_ends(text, ends):
    lines = text.split("\n")
    return "".join(line + ends[number % len(ends)] for number, line in enumerate(lines[:-1])) + lines[-1]


def ends_of(text):
    return re.findall(r"\r\n|\r|\n", text)


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize(
    "odd", ["", "x = 'a\u2028b\x85c\x1ce'  # \u2029 \x0c \x0b é\n", "\x0c\n"], ids=["", "separators", "form feed"]
)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "BOM"])
def test_line_ends_of_a_script_stay_as_they_are(tmp_path, ends, odd, mark):
    path = tmp_path / "train.py"
    path.write_bytes((mark + with_ends(odd + FAULTY, ends)).encode())

    kbitlint.fix(str(path))

    assert path.read_bytes().decode() == mark + with_ends(odd + CLEAN, ends)


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_a_moved_line_ends_as_the_line_that_it_is_put_before(tmp_path, ends):
    path = tmp_path / "train.py"
    path.write_bytes(with_ends(MOVED, ends).encode())

    report = kbitlint.fix(str(path))
    after = path.read_bytes().decode()

    assert report.violations == ()
    assert re.split(r"\r\n|\r|\n", after) == (IMPORTS + LOADED + PREPARED + ADAPTED + TRAINED).split("\n")
    place, before = (IMPORTS + LOADED).count("\n"), ends_of(with_ends(MOVED, ends))
    assert ends_of(after) == [*before[: place + 1], *before[place : place + 1], *before[place + 2 :]]


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "BOM"])
def test_line_ends_of_a_configuration_stay_as_they_are(tmp_path, ends, mark):
    text = "base_model: org/base  # é\nload_in_4bit: true\nadapter: qlora\ngradient_checkpointing: true\n"
    text += "gradient_checkpointing_kwargs:\n  use_reentrant: true\ndatasets:\n  - path: a\n"
    path = tmp_path / "train.yml"
    path.write_bytes((mark + with_ends(text, ends)).encode())

    assert [v.code for v in kbitlint.check(str(path)).violations] == ["KB401"]
    kbitlint.fix(str(path))

    assert path.read_bytes().decode() == mark + with_ends(text.replace("use_reentrant: true", "use_reentrant: false"), ends)


@pytest.mark.parametrize("inner", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("outer", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("listed", [True, False], ids=["list", "text"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "BOM"])
def test_line_ends_of_a_notebook_stay_as_they_are(tmp_path, inner, outer, listed, mark):
    def notebook(text):
        lines = text.replace("\n", inner).splitlines(keepends=True)
        source = json.dumps(lines if listed else "".join(lines), indent=1).replace("\u00e9", "\\u00e9")
        return mark + f'{{\n "cells": [\n  {{"cell_type": "code", "source": {source}}}\n ]\n}}\n'.replace("\n", outer)

    before, after = (f"%pip install peft\nname = 'é😀\\t'\n{text}x = 'é'" for text in (MOVED, CLEAN.replace(RANKED, TRAINED)))
    path = tmp_path / "n.ipynb"
    path.write_bytes(notebook(before).encode())

    kbitlint.fix(str(path))

    assert path.read_bytes().decode() == notebook(after)


def test_characters_of_a_notebook_that_stay_are_written_as_they_were(tmp_path):
    source = r'"m = \"\u00e9\/\ud83d\ude00\"; model = prepare_model_for_kbit_training(m)\u000a\u0078 = 1  # é"'
    text = f'{{"cells": [{{"cell_type": "code", "source": {source}}}]}}'
    path = tmp_path / "n.ipynb"
    path.write_text(text)

    kbitlint.fix(str(path))

    kwargs = r", gradient_checkpointing_kwargs={\"use_reentrant\": False}"
    assert path.read_text() == text.replace("_training(m)", f"_training(m{kwargs})")


# ----------------------------------------------------------------------------------------------- what a fix may leave

MISSPELT = "bnb_4bit_compute_type=torch.bfloat16"
CONFIG = f'bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant="nf4", {MISSPELT})\n'


@pytest.mark.parametrize("suffix", [".py", ".ipynb"])
def test_edits_of_one_call_are_made_one_after_the_other(tmp_path, suffix):
    text = IMPORTS + CONFIG + LOADED.split("\n", 1)[1] + PREPARED + ADAPTED + TRAINED
    path = tmp_path / f"train{suffix}"
    path.write_text(text if suffix == ".py" else json.dumps({"cells": [{"cell_type": "code", "source": text}]}))

    report = kbitlint.fix(str(path), unsafe=True)

    after = path.read_text() if suffix == ".py" else json.loads(path.read_text())["cells"][0]["source"]
    assert after == IMPORTS + LOADED + PREPARED + ADAPTED + TRAINED
    assert (report.violations, len(report.applied.edits), report.applied.passes) == ((), 2, 2)


def test_a_call_with_many_misspelt_arguments_is_fixed_to_the_last(tmp_path):
    given = {
        "load_in_4bits": "True",
        "bnb_4bit_quant_typ": "'nf4'",
        "bnb_4bit_compute_dtyp": "torch.bfloat16",
        "bnb_4bit_use_double_quants": "True",
        "bnb_4bit_quant_storag": "torch.uint8",
        "llm_int8_thresold": "6.0",
        "llm_int8_skip_module": "None",
        "llm_int8_has_fp16_weigth": "False",
        "llm_int8_enable_fp32_cpu_offloads": "False",
    }
    path = tmp_path / "train.py"
    path.write_text(f"{IMPORTS}BitsAndBytesConfig({', '.join(f'{name}={value}' for name, value in given.items())})\n")

    report = kbitlint.fix(str(path), unsafe=True)

    names = re.findall(r"(\w+)=", path.read_text())
    assert (report.violations, report.applied.passes) == ((), len(given))
    assert set(names) == set(QUANTIZATION_ARGUMENTS["BitsAndBytesConfig"]) - {"load_in_8bit"}


FUTURE = "from __future__ import annotations"
UNIMPORTED = """from transformers import BitsAndBytesConfig
b = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{FUTURE}; import os\n{{}}", f"{FUTURE}; import torch; import os\n{{}}"),
        (f"{FUTURE} ; import os  # é\n{{}}", f"{FUTURE} ; import torch; import os  # é\n{{}}"),
        (f'"""Doc."""; {FUTURE}; import os\n{{}}', f'"""Doc."""; {FUTURE}; import torch; import os\n{{}}'),
        ('"""Doc\n; x"""; import os\n{}', '"""Doc\n; x"""; import torch; import os\n{}'),
        (f"{FUTURE}; x = 1; import os\n{{}}", f"{FUTURE}; import torch; x = 1; import os\n{{}}"),
        ("{}", "import torch\n{}"),
        ('"""Doc."""\n{}', '"""Doc."""\nimport torch\n{}'),
        ("#!/usr/bin/env python\n{}", "#!/usr/bin/env python\nimport torch\n{}"),
        (
            "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n\n{}",
            "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n\nimport torch\n{}",
        ),
        ("x = 1; import os\n{}", "import torch\nx = 1; import os\n{}"),
        ("x = 1; \\\nimport os\n{}", "x = 1; \\\nimport torch\nimport os\n{}"),
        ("\x0cimport os\n{}", "import torch\n\x0cimport os\n{}"),
    ],
)
def test_an_import_goes_where_it_may_stand(tmp_path, before, after):
    path = tmp_path / "train.py"
    path.write_text(before.format(UNIMPORTED))

    kbitlint.fix(str(path), unsafe=True)

    expected = after.format(UNIMPORTED).replace('"nf4")', '"nf4", bnb_4bit_compute_dtype=torch.bfloat16)')
    assert path.read_text() == expected
    compile(path.read_text(), "train.py", "exec", dont_inherit=True)


@pytest.mark.parametrize(
    "first", ['"""Doc."""\nfrom __future__ import annotations', "from __future__ import annotations; import os"]
)
def test_an_import_goes_behind_what_stays_first_in_a_later_cell(tmp_path, first):
    path = tmp_path / "n.ipynb"
    cells = ["%pip install peft\n%load_ext x", f"{first}\n{UNIMPORTED}"]
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": text} for text in cells]}))

    kbitlint.fix(str(path), unsafe=True)

    added = first.replace("; import os", "; import torch; import os") if ";" in first else f"{first}\nimport torch"
    fixed = UNIMPORTED.replace('"nf4")', '"nf4", bnb_4bit_compute_dtype=torch.bfloat16)')
    assert [cell["source"] for cell in json.loads(path.read_text())["cells"]] == [cells[0], f"{added}\n{fixed}"]


@pytest.mark.parametrize("first", ["%%bash\nls", "%%capture\n%pip install peft", "%pip install peft\n%load_ext x", "a (", ""])
def test_an_import_goes_into_a_cell_that_holds_python(tmp_path, first):
    guarded = f"try:\n    {UNIMPORTED.splitlines()[0]}\nexcept ImportError:\n    raise\n{UNIMPORTED.splitlines()[1]}"
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": text} for text in (first, f"%%time\n{guarded}")]}))

    kbitlint.fix(str(path), unsafe=True)

    fixed = guarded.replace('"nf4")', '"nf4", bnb_4bit_compute_dtype=torch.bfloat16)')
    assert [cell["source"] for cell in json.loads(path.read_text())["cells"]] == [first, f"%%time\nimport torch\n{fixed}"]


UNCOMPILED = [
    (
        "train.py",
        CONFIG.replace("load_in_4bit=True", "load_in_4bit=True, load_in_4bit=True"),
        "keyword argument repeated: load_in_4bit",
    ),
    ("train.py", CONFIG + "return bnb\n", "'return' outside function"),
]


@pytest.mark.parametrize(("name", "text", "fault"), UNCOMPILED)
def test_what_does_not_compile_is_not_fixed(run, tmp_path, name, text, fault):
    (tmp_path / name).write_text(IMPORTS + text)

    result = run("check", "--fix", "--unsafe-fixes", name)

    line = (IMPORTS + text).count("\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr == f"kbitlint: {name}: does not compile ({fault}, line {line}), so it is not fixed; repair that first\n"
    )
    assert (tmp_path / name).read_text() == IMPORTS + text


def rewritten_as(monkeypatch, code):
    """Every argument that a fix sets gets this text."""
    from kbitlint.facts.source_text import SourceText

    monkeypatch.setattr(SourceText, "set_argument", lambda self, call, name, _: self.replace(call.span, code))


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("f(a=1, a=2)", "does not compile (keyword argument repeated: a, line 10)"),
        ("await f()", "does not compile ('await' outside function, line 10)"),
        ("(", "cannot be read (train.py: is not valid Python: '(' was never closed (line 10))"),
        ("\\", "has another statement changed (line 11)"),
    ],
)
def test_a_fix_that_leaves_something_else_is_not_written(run, tmp_path, monkeypatch, code, problem):
    rewritten_as(monkeypatch, code)
    (tmp_path / "train.py").write_text(FAULTY)

    result = run("--fix", "train.py")

    left = f"the fix leaves a file that {problem}; it was left as it was"
    assert (result.exit_code, result.stderr) == (2, f"kbitlint: train.py: {left}\n")
    assert (tmp_path / "train.py").read_text() == FAULTY


def test_a_cell_that_a_fix_breaks_is_not_taken_for_another_language(run, tmp_path, monkeypatch):
    rewritten_as(monkeypatch, "(")
    text = json.dumps({"cells": [{"cell_type": "code", "source": source} for source in ("broken (", FAULTY)]})
    (tmp_path / "n.ipynb").write_text(text)

    result = run("--fix", "n.ipynb")

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "n.ipynb: the fix leaves a file that does not compile (cell 2: '(' was never closed" in result.stderr
    assert (tmp_path / "n.ipynb").read_text() == text


def test_a_cell_may_await(tmp_path):
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": "await ready()\n" + FAULTY}]}))

    assert kbitlint.fix(str(path)).violations == ()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_a_diff_has_the_lines_that_python_counts(run, tmp_path, end):
    text = ("x = 'a\u2028b'\x0c\n" + FAULTY.replace("os\n", "os  # \x1c\n")).replace("\n", end)
    (tmp_path / "train.py").write_bytes(text.encode())

    shown = run("check", "--diff", "train.py").stdout.split("\n")
    diff = kbitlint.fix(tmp_path / "train.py").applied.diff

    assert [line for line in diff.split("\n") if line[:1] == "@"] == ["@@ -9,5 +9,5 @@"]
    assert [line[:1] for line in shown[shown.index("@@ -9,5 +9,5 @@") + 1 :][:6]] == [" ", " ", "-", "+", " ", " "]
