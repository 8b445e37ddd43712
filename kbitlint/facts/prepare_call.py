"""The edit of a script that calls kbitlint's fix in place of PEFT's prepare."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint import lazy_patterns as re
from kbitlint.violation import Fix, Safety

if TYPE_CHECKING:
    from kbitlint.facts.source_text import SourceText
    from kbitlint.facts.values import Call

#: a call that ``kbitlint.fix`` can replace: it asks for a frozen base and checkpointing, and for no more
_SAME = re.compile(
    r"[^(]*\(\s*(?:model\s*=\s*)?(?P<name>[A-Za-z_]\w*)\s*"
    r"(?:,\s*(?:use_gradient_checkpointing\s*=\s*)?True\s*)?"
    r"(?:,\s*gradient_checkpointing_kwargs\s*=\s*\{\s*['\"]use_reentrant['\"]\s*:\s*(?:True|False)\s*\}\s*)?,?\s*\)"
)


_TITLE = "call kbitlint.fix(model) in its place: it freezes the base and keeps half precision"


def fix_instead(source: SourceText, call: Call, *, bare: bool) -> Fix:
    """Return the fix that turns ``model = prepare_model_for_kbit_training(model)`` into ``kbitlint.fix(model)``.

    It has no edits if the statement has another form, or arguments that ask for more than kbitlint's fix does.

    Args:
        source: The file.
        call: The call of PEFT.
        bare: Whether the model has no adapters yet at the call. PEFT's function would freeze them.
    """
    name, found = source.name_of(call), _SAME.fullmatch(source.code_of(call.span))
    if not (bare and name and found is not None and found["name"] == name):
        return Fix(_TITLE, Safety.DISPLAY)
    line = source.line_start(call.span.start)
    start = line + len(source.text[line:]) - len(source.text[line:].lstrip(" \t"))
    module, imports = source.importing("kbitlint", call.span)
    edits = (*imports, *source.replace(dataclasses.replace(call.span, start=start), f"{module}.fix({name})"))
    return Fix(_TITLE, Safety.UNSAFE, edits)
