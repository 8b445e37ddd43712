"""Edits that move arguments of a load into its quantization config, with the user's own values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbitlint.facts.source_text import SourceText
    from kbitlint.facts.values import Argument, Call
    from kbitlint.violation import Edit


def is_keyword(source: SourceText, call: Call, argument: Argument) -> bool:
    """Return whether an argument is written as ``name=value`` in the call itself."""
    within = call.span.start <= argument.whole.start < call.span.end
    return within and source.text.startswith(argument.name, argument.whole.start)


def into_given_config(source: SourceText, call: Call, given: Sequence[Argument]) -> tuple[Edit, ...]:
    """Return the edits that move arguments into the ``BitsAndBytesConfig`` that is written in the same call.

    Return no edit if the config is written elsewhere, is of another class, or has one of the arguments.
    """
    config = call.within("quantization_config")
    if config is None or config.callee != "transformers.BitsAndBytesConfig" or any(config.gives(one.name) for one in given):
        return ()
    inside = call.span.start <= config.span.start < call.span.end
    removed = source.remove_arguments(given) if inside and all(is_keyword(source, call, one) for one in given) else ()
    if not removed:
        return ()
    first, *others = ((one.name, source.code_of(one.span)) for one in given)
    code = ", ".join([first[1], *(f"{name}={value}" for name, value in others)])
    return source.set_argument(config, first[0], code) + removed


def into_new_config(
    source: SourceText, call: Call, flag: Argument, beside: Sequence[Argument]
) -> tuple[tuple[Edit, ...], bool]:
    """Return the edits that replace ``load_in_4bit=True`` by a config, and whether they add values of their own.

    Args:
        source: The text.
        call: The load.
        flag: The argument ``load_in_4bit`` or ``load_in_8bit``, which is True.
        beside: The other arguments of the config that the load passes; they move into the config unchanged.
    """
    if not all(is_keyword(source, call, one) for one in (flag, *beside)):
        return (), False
    removed = source.remove_arguments(beside)
    if beside and not removed:
        return (), False
    config, edits = source.importing("transformers.BitsAndBytesConfig")
    added, given = [], {one.name for one in beside}
    if flag.name == "load_in_4bit" and "bnb_4bit_quant_type" not in given:
        added.append('bnb_4bit_quant_type="nf4"')
    if flag.name == "load_in_4bit" and "bnb_4bit_compute_dtype" not in given:
        torch, needed = source.importing("torch", call.span)
        added.append(f"bnb_4bit_compute_dtype={torch}.bfloat16")
        edits += needed
    inner = ", ".join([f"{flag.name}=True", *added, *(source.code_of(one.whole) for one in beside)])
    return source.replace(flag.whole, f"quantization_config={config}({inner})") + removed + edits, bool(added)
