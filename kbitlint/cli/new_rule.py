"""``kbitlint new-rule``: the two files of a rule of one's own, which run and are to be edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.errors import KbitlintError
from kbitlint.files import atomic
from kbitlint.rule import CODE, SLUG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RULE = '''\
"""Rule {code}: {slug}."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class {name}(Rule):
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
'''
_TEST = """\
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
"""


def create(folder: Path, package: str, slug: str, code: str) -> Iterator[str]:
    """Write a rule into a package, and its test beside the package, and yield a line for each file.

    Args:
        folder: The folder of the package.
        package: The package; it is made if it is not there.
        slug: The slug of the rule.
        code: Its code.

    Raises:
        KbitlintError: The slug, the code or the package is no such name, or a file is there or cannot be written.
    """
    if not SLUG.fullmatch(slug):
        raise KbitlintError(f"new-rule {slug}: a slug is words joined by hyphens: trainable-head")
    if not CODE.fullmatch(code):
        raise KbitlintError(f"new-rule {slug}: --code {code}: a code is capital letters and three digits: HOU001")
    if not package.isidentifier():
        raise KbitlintError(f"new-rule {slug}: --package {package}: is no name of a package")
    module, name = slug.replace("-", "_"), "".join(map(str.capitalize, slug.split("-")))
    values = {"code": code, "slug": slug, "name": name, "module": module, "package": package}
    written = {
        folder / package / f"{module}.py": _RULE.format(**values),
        folder / f"test_{module}.py": _TEST.format(**values),
    }
    for path in written:
        if path.exists():
            raise KbitlintError(f"new-rule {slug}: {path.relative_to(folder)} is there already")
    start = folder / package / "__init__.py"
    if not start.exists():
        written = {start: "", **written}
        yield f'add to pyproject.toml, then pip install -e .: [project.entry-points."kbitlint.rules"] {package} = "{package}"'
    for path, text in written.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.replace(path, text.encode())
        except OSError as error:
            raise KbitlintError(f"{path}: cannot be written: {error.strerror or error}") from error
        yield f"written: {path.relative_to(folder)}"
