"""``kbitlint new-rule``: a rule of one's own and its test, which run and are to be edited, in a package that installs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kbitlint.errors import KbitlintError
from kbitlint.files import atomic
from kbitlint.rule import CODE, SLUG
from kbitlint.runtime import content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEAD = '''\
"""Rule {code}: {slug}."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, {kinds}

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.{facts}


class {name}(Rule):
'''
_RULE = {
    "model": '''\
    """The output head requires grad.

    ## What it does

    Reports `lm_head.weight` if it requires grad. This is an example: write what your rule reports.

    ## Why is this bad?

    What training suffers, and who has measured it.

    ## Example

    A model straight from `from_pretrained`.

    ## Fix

    Freeze it.

    ## Fix safety

    Safe: no adapter is in the head.

    ## References

    - https://arxiv.org/abs/2305.14314
    """

    meta: ClassVar[Meta] = Meta("{code}", "{slug}", Severity.WARNING, Consequence.TRAINS_WRONG, "1.0")

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation."""
        for parameter in model.trainable:
            if parameter.path == "lm_head.weight":
                fix = Fix("freeze it", Safety.SAFE, (Edit("freeze", parameter.path),))
                yield self.violation("the head requires grad", Location(parameter.path), fix=fix)
''',
    "source": '''\
    """The learning rate is higher than our runs bear.

    ## What it does

    Reports a `learning_rate` above 0.001. This is an example: write what your rule reports.

    ## Why is this bad?

    What training suffers, and who has measured it.

    ## Example

    `SFTConfig("out", learning_rate=0.1)`

    ## Fix

    Lower it.

    ## Fix safety

    Unsafe: training changes.

    ## References

    - https://arxiv.org/abs/2305.14314
    """

    meta: ClassVar[Meta] = Meta("{code}", "{slug}", Severity.WARNING, Consequence.UNSTABLE, "1.0")

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each config of a Trainer."""
        for call in source.calls_of("transformers.TrainingArguments", "trl.SFTConfig"):
            rate = call.argument("learning_rate")
            if rate is not None and isinstance(rate.value, float) and rate.value > 0.001:
                yield self.violation(
                    f"the learning rate is {{rate.value}}",
                    source.at_line(rate.whole.line, "learning_rate"),
                    surface=Surface.SOURCE,
                    fix=Fix("lower it", Safety.UNSAFE, source.replace(rate.span, "0.001")),
                )
''',
}
_KINDS = {
    "model": ("Edit, Fix, Location, Safety, Severity, Violation", "model import ModelFacts"),
    "source": ("Fix, Safety, Severity, Surface, Violation", "source import SourceFacts"),
}
_TEST = {
    "model": """\
from {package}.{module} import {name}
from transformers import LlamaConfig, LlamaForCausalLM

from kbitlint.testing import Case, hold


def as_loaded():
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    return LlamaForCausalLM(config)


def frozen():
    model = as_loaded()
    model.lm_head.requires_grad_(False)
    return model


def test_{module}():
    hold({name}, flagged=[Case(as_loaded, {{"lm_head.weight"}})], clean=[Case(frozen)])
""",
    "source": """\
from {package}.{module} import {name}

from kbitlint.testing import Script, hold

FAULTY = '''\
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="bfloat16")
model = AutoModelForCausalLM.from_pretrained("org/model", quantization_config=bnb, dtype="bfloat16")
args = SFTConfig("out", learning_rate=0.1)
SFTTrainer(model, args, train_dataset=data, peft_config=LoraConfig(target_modules="all-linear")).train()
'''


def test_{module}():
    hold({name}, flagged=[Script(FAULTY, {{7}})], clean=[Script(FAULTY.replace("0.1", "0.0002"))])
""",
}
_PROJECT = """\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "{package}"
version = "1.0"
dependencies = ["kbitlint"]

[project.entry-points."kbitlint.rules"]
{package} = "{package}"

[tool.setuptools]
packages = ["{package}"]
"""
#: what a pyproject.toml that is there lacks
_ENTRY = ('[project.entry-points."kbitlint.rules"]', '{package} = "{package}"')


def _must_be_names(package: str, slug: str, code: str) -> None:
    if not SLUG.fullmatch(slug):
        raise KbitlintError(f"new-rule {slug}: a slug is words joined by hyphens: trainable-head")
    if not CODE.fullmatch(code):
        raise KbitlintError(f"new-rule {slug}: --code {code}: a code is capital letters and three digits: HOU001")
    if not package.isidentifier():
        raise KbitlintError(f"new-rule {slug}: --package {package}: is no name of a package")


def _text_of(project: Path) -> str:
    try:
        return content.read_text(project)
    except (OSError, UnicodeDecodeError) as error:
        raise KbitlintError(f"{project}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def create(folder: Path, package: str, slug: str, code: str, surface: str = "model") -> Iterator[str]:
    """Write a rule into a package, and its test beside the package, and yield a line for each file.

    Args:
        folder: The folder of the package.
        package: The package; it is made if it is not there, with a ``pyproject.toml`` that installs it.
        slug: The slug of the rule.
        code: Its code.
        surface: What the rule reads: ``model`` or ``source``.

    Raises:
        KbitlintError: The slug, the code or the package is no such name, or a file is there or cannot be written.
    """
    _must_be_names(package, slug, code)
    module, name = slug.replace("-", "_"), "".join(map(str.capitalize, slug.split("-")))
    kinds, facts = _KINDS[surface]
    values = {"code": code, "slug": slug, "name": name, "module": module, "package": package, "kinds": kinds, "facts": facts}
    written = {
        folder / package / f"{module}.py": _HEAD + _RULE[surface],
        folder / f"test_{module}.py": _TEST[surface],
    }
    for path in written:
        if path.exists():
            raise KbitlintError(f"new-rule {slug}: {path.relative_to(folder)} is there already")
    start, project = folder / package / "__init__.py", folder / "pyproject.toml"
    if not start.exists():
        written = {start: "", **written}
    known = _text_of(project) if os.path.lexists(project) else None
    if known is None:
        written = {project: _PROJECT, **written}
    for path, text in written.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.replace(path, text.format(**values).encode())
        except OSError as error:
            raise KbitlintError(f"{path}: cannot be written: {error.strerror or error}") from error
        yield f"written: {path.relative_to(folder)}"
    if known is not None and _ENTRY[0] not in known:
        yield from ("add to pyproject.toml:", *(f"    {line.format(**values)}" for line in _ENTRY))
    yield f"then: pip install -e . pytest; kbitlint explain {code}; python -m pytest test_{module}.py"
