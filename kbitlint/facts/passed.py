"""Arguments that a call certainly passes: keywords, and items of the dicts that it unpacks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Argument, Call

#: a key in the text: ``name=``, ``"name":``, ``kwargs["name"] =``, ``setdefault("name",``
_KEY = re.compile(r"""(?:[\w.]{1,80}\[)?["']?(\w{1,80})["']?\s{0,20}[\]:=,]""")


def passes(source: SourceFacts, call: Call, argument: Argument) -> bool:
    """Return whether a call passes an argument on every path that reaches it, as a keyword or by a dict that it unpacks."""
    if source.writes(call, argument):
        return True
    if source.unfollowed:
        return False  # a path that was not followed may leave the item out
    place = argument.whole
    key = _KEY.match(source.text, place.start)
    named = place.start == place.end or (key is not None and key[1] == argument.name)
    return named and all(form.argument(argument.name) is not None for form in source.variants.get(call.span, ()))


def is_alias(source: SourceFacts, call: Call) -> bool:
    """Return whether a call names its class by a variable of the file: ``make = partial(TrainingArguments, ...)``."""
    name = source.code_of(call.span).partition("(")[0].strip()
    local = name.isidentifier() and f"{name} = " in source.text and f"class {name}" not in source.text
    return local and all(one != name for _, one in source.imports)
