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
    if not is_certain(source, call, argument):
        return False
    if source.writes(call, argument):
        return True
    place = argument.whole
    key = _KEY.match(source.text, place.start)
    named = place.start == place.end or (key is not None and key[1] == argument.name)
    return named and all(form.argument(argument.name) is not None for form in source.variants.get(call.span, ()))


def is_certain(source: SourceFacts, call: Call, argument: Argument) -> bool:
    """Return whether the ways that were followed tell of an argument that all ways pass it.

    They do if they are all, or if the call or a dict display names it: ``kwargs["name"] = ...`` may be left out.
    """
    place = argument.whole.start
    return not source.unfollowed or source.writes(call, argument) or source.text[place : place + 1] in ("'", '"')


def is_alias(source: SourceFacts, call: Call) -> bool:
    """Return whether a call names its class by a variable of the file: ``make = partial(TrainingArguments, ...)``."""
    name = source.code_of(call.span).partition("(")[0].strip()
    local = name.isidentifier() and f"{name} = " in source.text and f"class {name}" not in source.text
    return local and all(one != name for _, one in source.imports)
