"""Options that do not apply to any target of a run are refused: an option without an effect is a misunderstanding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kbitlint.errors import TargetError
from kbitlint.target import FACTORIES, Kind, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONFIGS = (Kind.CHECKPOINT, Kind.ADAPTER, Kind.HUB)
_MODELS = (*_CONFIGS, *FACTORIES)
#: parameter -> the kinds of targets to which it applies
_KINDS = {
    "quantize": _CONFIGS,
    "trust_remote_code": _CONFIGS,
    "meta": FACTORIES,
    "trace": _MODELS,
    "norms": _MODELS,
    "probe_batch": _MODELS,
    "probe_seq": _MODELS,
    "device": _MODELS,
    "output": (Kind.CHECKPOINT, Kind.ADAPTER),
    "exclude": (Kind.TREE,),
    "add_ignore": (Kind.SCRIPT, Kind.TREE),
}
#: parameters that change what a fix does
_OF_FIXES = ("norms", "probe_batch", "probe_seq", "device", "output", "exit_non_zero_on_fix")
_OF_PLANS = ("norms",)


def must_apply(context: click.Context, targets: Iterable[str]) -> None:
    """Raise if an option of the command line applies to none of the targets, or needs another option.

    Targets that cannot be parsed are left to the audit, which reports why.

    Raises:
        click.UsageError: One does. The message names the option and to what it applies.
    """
    given = {name for name in context.params if _is_given(context, name)}
    params = context.params
    if "check" in (context.command.name or ""):
        for name in _OF_FIXES:
            plans = params.get("diff") and name in _OF_PLANS
            if name in given and not params.get("fix") and not plans:
                raise click.UsageError(f"{_option(context, name)} changes what --fix does: give --fix too", context)
        if params.get("add_ignore") and (params.get("fix") or params.get("diff")):
            raise click.UsageError("--add-ignore accepts what --fix repairs: give one of them", context)
    kinds = set(_kinds(targets))
    for name in sorted(given & set(_KINDS)):
        if kinds and not kinds & set(_KINDS[name]):
            named = " or ".join(kind.value for kind in _KINDS[name])
            found = " or ".join(sorted(kind.value for kind in kinds))
            raise click.UsageError(f"{_option(context, name)} applies to a {named}, not to a {found}", context)


def _kinds(targets: Iterable[str]) -> Iterable[Kind]:
    for target in targets:
        try:
            yield Kind.SCRIPT if target == "-" else parse(target).kind
        except TargetError:
            yield from Kind  # anything may have been meant


def _is_given(context: click.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(context: click.Context, name: str) -> str:
    parameter = next(item for item in context.command.params if item.name == name)
    value = context.params[name]
    return parameter.secondary_opts[0] if value is False and parameter.secondary_opts else parameter.opts[0]
