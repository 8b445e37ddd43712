from __future__ import annotations

import pytest
import tiny

import kbitlint
from kbitlint.upstream.quantization import QUANTIZATIONS


@pytest.fixture
def configured(run, tmp_path):
    def write(text):
        (tmp_path / "pyproject.toml").write_text(text)
        return run

    return write


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('targts = ["x"]', "targts: unknown key; did you mean 'targets'?"),
        ('targets = "x"', "targets: must be a list of strings"),
        ("select = [1]", "select: must be a list of strings"),
        ('fail-on = "warn"', "fail-on: 'warn' is none of info, warning, error"),
        ("fail-on = 1", "fail-on: must be a string"),
        (
            'quantize = "nf5"',
            f"quantize: 'nf5' is none of {', '.join(QUANTIZATIONS)}; did you mean 'nf4'?",
        ),
        ('meta = "yes"', "meta: must be true or false"),
        ("max-stepz = 1", "max-stepz: unknown key; did you mean 'max-steps'?"),
        ("max-steps = 0", "max-steps: must be a number, more than 0"),
        ("max-tokens = true", "max-tokens: must be a number, more than 0"),
        ('max-file-size = "big"', "max-file-size: 'big' is no size; write 8GB, 512MiB or a number of bytes"),
        ("max-file-size = 1.5", 'max-file-size: must be a size such as "2MB", more than 0'),
        ("options = { KB104 = 0.1 }", "options: must be a table of tables: { KB104 = { warn-from = 0.1 } }"),
        ("options.KB104.warn-from = [1]", "options.KB104.warn-from: must be a number, a string, true or false"),
    ],
)
def test_every_error_names_file_key_and_what_is_wrong(configured, tmp_path, line, problem):
    result = configured(f"[tool.kbitlint]\n{line}\n")("config")

    assert result.exit_code == 2
    assert result.stderr.startswith(f"kbitlint: {tmp_path}/pyproject.toml: tool.kbitlint.{problem}")


def test_broken_toml_is_one_line(configured, tmp_path):
    result = configured("[tool.kbitlint\n")("check", "plants:clean")

    assert result.exit_code == 2
    assert result.stderr.startswith(f"kbitlint: {tmp_path}/pyproject.toml: tool.kbitlint: the file is not valid TOML: ")


@pytest.mark.parametrize(("name", "close"), [("kbitlnt", True), ("kbit-lint", True), ("KBitLint", True), ("kubelint", False)])
def test_a_table_with_nearly_the_name_is_no_silent_default(configured, tmp_path, name, close):
    result = configured(f'[tool.{name}]\nignore = ["KB401"]\n')("config")

    problem = f"{tmp_path}/pyproject.toml: tool.{name}: unknown table; did you mean 'tool.kbitlint'?"
    assert (result.exit_code, result.stderr) == ((2, f"kbitlint: {problem}\n") if close else (0, ""))


def test_a_table_is_wanted(configured, tmp_path):
    result = configured("[tool]\nkbitlint = 3 # tool.kbitlint\n")("config")

    assert result.stderr == f"kbitlint: {tmp_path}/pyproject.toml: tool.kbitlint: must be a table\n"


def test_what_applies_is_printed(configured, tmp_path):
    result = configured('[tool.kbitlint]\ntargets = ["plants:clean"]\nfail-on = "error"\n')("config")

    assert result.output == (
        f"# {tmp_path}/pyproject.toml\n"
        'targets = ["plants:clean"]\nrehearse = []\nselect = []\nignore = []\nfail-on = "error"\n'
        "quantize = # not set\ndevice = # not set\nmeta = false\n"
        "training = # not set\nbaseline = # not set\ncache-dir = # not set\n"
        'exclude = ["__pycache__", "node_modules", "site-packages", "venv", "build", "dist"]\n'
        "extend-exclude = []\nforce-exclude = false\n"
        "max-file-size = 2000000\nmax-tokens = 200000\nmax-steps = 120000\nignore-in = []\nseverity = {}\noptions = {}\n"
    )


def test_without_a_file_the_defaults_apply(run):
    result = run("config")

    assert result.output.startswith("# no pyproject.toml with [tool.kbitlint]: defaults\ntargets = []\n")


class TestEachKeyBites:
    """No option is read and then dropped."""

    def test_targets(self, configured):
        assert configured('[tool.kbitlint]\ntargets = ["plants:clean"]\n')("check").exit_code == 0

    def test_select(self, configured):
        assert configured('[tool.kbitlint]\nselect = ["KB501"]\n')("check", "plants:unprepared").exit_code == 0

    def test_ignore(self, configured):
        ignoring = configured('[tool.kbitlint]\nignore = ["KB101", "KB2", "checkpointing-off"]\n')

        assert ignoring("check", "plants:unprepared").exit_code == 0

    def test_fail_on(self, configured):
        assert configured('[tool.kbitlint]\nfail-on = "error"\n')("check", "plants:unprepared").exit_code == 0

    def test_quantize(self, configured):
        import tiny

        result = configured('[tool.kbitlint]\nquantize = "int8"\n')("check", tiny.checkpoint())

        assert "bitsandbytes int8 on 14 layers" in " ".join(result.output.split())

    def test_device(self, configured):
        assert configured('[tool.kbitlint]\ndevice = "cpu"\n')("--fix", "plants:unprepared").exit_code == 0

    def test_meta(self, configured):
        result = configured("[tool.kbitlint]\nmeta = true\n")("check", "plants:unprepared")

        assert "no weights read" in result.output

    def test_the_command_line_wins(self, configured):
        run = configured('[tool.kbitlint]\nselect = ["KB501"]\nfail-on = "error"\nmeta = true\n')

        result = run("check", "plants:unprepared", "--select", "KB402", "--fail-on", "warning", "--no-meta")

        assert (result.exit_code, "no weights read" in result.output) == (1, False)

    def test_the_nearest_file_with_the_table_counts(self, configured, tmp_path, monkeypatch):
        run = configured('[tool.kbitlint]\ntargets = ["plants:clean"]\n')
        inner = tmp_path / "inner"
        inner.mkdir()
        (inner / "pyproject.toml").write_text("[project]\nname = 'x'\n")
        monkeypatch.chdir(inner)

        assert run("check").exit_code == 0

    def test_targets_are_found_beside_the_file_that_names_them(self, configured, tmp_path, monkeypatch):
        (tmp_path / "train.py").write_text("import tiny\ndef build():\n    return tiny.prepared()\n")
        run = configured('[tool.kbitlint]\ntargets = ["train.py:build"]\n')
        (tmp_path / "inner").mkdir()
        monkeypatch.chdir(tmp_path / "inner")

        assert run("check").exit_code == 0


def test_options_may_stand_before_the_command(run):
    assert run("--verbose", "check", "plants:clean").exit_code == 0
    assert run("--fix", "check", "plants:unprepared", "--device", "cpu").exit_code == 0


def test_selectors_are_checked_when_the_configuration_is_printed(configured):
    assert configured('[tool.kbitlint]\nselect = ["KB91"]\n')("config").exit_code == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "KB104.warn-form = 0.1",
            "options.KB104.warn-form: float32-frozen-weight has no such option; did you mean 'warn-from'?",
        ),
        ('KB104.warn-from = "much"', "options.KB104.warn-from: must be a number, not 'much'"),
        ("float32-frozen-weight.warn-from = true", "options.KB104.warn-from: must be a number, not True"),
        ("KB101.x = 1", "options.KB101.x: low-precision-norm has no such option"),
        ("KB999.x = 1", "no rule is called 'KB999'"),
    ],
)
def test_an_option_that_no_rule_takes_is_one_clear_line(configured, line, problem):
    for command in (("config",), ("check", "plants:clean")):
        result = configured(f"[tool.kbitlint.options]\n{line}\n")(*command)

        assert (result.exit_code, result.stderr.startswith(f"kbitlint: {problem}")) == (2, True), result.stderr


def test_options_of_rules_are_printed_as_they_are_written(configured):
    written = 'options = { "KB104" = { "warn-from" = 0.2 } }'

    assert configured(f"[tool.kbitlint]\n{written}\n")("config").output.splitlines()[-1] == written


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_an_option_decides_what_the_rule_reports(configured, run, tmp_path):
    arguments = ("check", str(tiny.checkpoint("mixtral (MoE)")), "--quantize", "nf4", "--select", "KB504", "--no-trace")

    assert run(*arguments).exit_code == 1
    assert configured("[tool.kbitlint]\noptions = { unquantized-experts = { warn-below = 0.05 } }\n")(*arguments).exit_code == 0
    model = tiny.load("mixtral (MoE)")
    found = kbitlint.check(model, select="KB504", rule_options={"KB504": {"warn-below": 0}}).violations
    assert {violation.severity.value for violation in found} == {"info"}
    assert {violation.severity.value for violation in kbitlint.check(model, select="KB504").violations} == {"warning"}
    assert "- `warn-below` (0.5): the share of quantized parameters below which" in run("explain", "KB504").output
