"""Results as JSON, and back. Reading runs no code, since the file may come from a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.audit.script_audit import ScriptAudit
from kbitlint.engine import Outcome
from kbitlint.result import Skip
from kbitlint.runtime.records import Codec
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS: Mapping[str, type[Any]] = {
    kind.__name__: kind
    for kind in (Edit, Fix, Location, Outcome, ScriptAudit, Skip, Violation, Consequence, Safety, Severity, Surface)
}
_CODEC = Codec(lambda kind: kind.__name__ if _KINDS.get(kind.__name__) is kind else None, _KINDS.__getitem__, "{} is not kept")
packed, unpacked = _CODEC.packed, _CODEC.unpacked
