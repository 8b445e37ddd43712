"""A pytest plugin: the fixture ``kbitlint`` asserts in a project's tests that a model is ready to train.

def test_the_model_learns(kbitlint):
    kbitlint.ready("train.py:build_model", meta=True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kbitlint.report import Report
    from kbitlint.violation import Severity


class Kbitlint:
    """What the fixture ``kbitlint`` gives."""

    def ready(self, target: Any, *, fail_on: str | Severity = "error", **options: Any) -> Report:
        """Fail the test with the report unless training works and learns; return the report.

        Args:
            target: As for ``kbitlint.check``.
            fail_on: The least severity that fails: ``error``, ``warning`` or ``info``.
            **options: As for ``kbitlint.check``.

        Raises:
            KbitlintError: As for ``kbitlint.check``; or ``fail_on`` is no severity.
        """
        __tracebackhide__ = True
        from kbitlint import api  # pytest starts without it

        try:
            return api.ready(target, fail_on=fail_on, **options)
        except AssertionError as error:
            pytest.fail(str(error).strip(), pytrace=False)

    def check(self, target: Any, **options: Any) -> Report:
        """Return the report of ``kbitlint.check``."""
        from kbitlint import api  # as above

        return api.check(target, **options)


@pytest.fixture(scope="session", name="kbitlint")
def _kbitlint() -> Kbitlint:
    """Audit quantized models: ``kbitlint.ready(model)`` fails the test unless training works and learns."""
    return Kbitlint()
