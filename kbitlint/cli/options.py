"""The options of the command line, as click decorators with their help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbitlint.output.formats import NAMES as FORMATS
from kbitlint.sizes import size_of
from kbitlint.upstream.quantization import QUANTIZATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from click.shell_completion import CompletionItem

#: the argument of --amp -> TrainingContext.autocast_dtype
AMP = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}


_SEVERITIES = ("info", "warning", "error")


TRAINING_OPTION = click.option(
    "--training",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="How training is launched: the file of accelerate config, or a DeepSpeed JSON file.",
)


#: options of check and memory: how a target is opened and where the report goes
OPENING_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--quantize",
        type=click.Choice(QUANTIZATIONS),
        help="How an unquantized checkpoint will be loaded. Its own quantization_config wins.",
    ),
    click.option("--meta/--no-meta", default=None, help="Run factories without weights: from_pretrained builds on meta."),
    click.option(
        "--amp",
        type=click.Choice(sorted(AMP)),
        help="The autocast region that training opens; no: none. Unknown where neither this nor a Trainer says it.",
    ),
    TRAINING_OPTION,
    click.option("--trust-remote-code", is_flag=True, help="Let a checkpoint run its own code. Never done without it."),
    click.option("--output-file", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there."),
    click.option("--verbose", "-v", is_flag=True, help="Show tracebacks, and every rule that was skipped."),
)


def _size(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else size_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


JOBS_OPTIONS = (
    click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Audit N targets at once, each in its own process."),
    click.option(
        "--target-timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Give one target no longer than this; it then runs in its own process.",
    ),
    click.option(
        "--target-memory",
        callback=_size,
        metavar="SIZE",
        help="Give one target no more memory than this (8GB); it then runs in its own process.",
    ),
)
RANK_OPTION = click.option(
    "--rank-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    metavar="SECONDS",
    help="Under torchrun: how long a rank waits for the others (default: 300).",
)

RUN_OPTION = click.option(
    "--no-run",
    "run",
    flag_value=False,
    default=True,
    type=bool,
    help="Run no function: those among the targets are skipped, not audited.",
)

#: the machines that ``kbitlint.rehearsal.stand_ins.devices`` knows
_MACHINES = ("h100", "a100", "4090", "t4")

SUPPRESSING_OPTIONS = (
    click.option(
        "--baseline", type=click.Path(dir_okay=False, path_type=Path), help="Known violations that are not counted, by place."
    ),
    click.option("--write-baseline", is_flag=True, help="Accept all violations: write them to --baseline and leave with 0."),
    click.option("--prune-baseline", is_flag=True, help="Take out of --baseline what is not there any more."),
)


def _spec(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and "=" not in value and value not in ("default", "none", "dora", "rslora"):
        raise click.BadParameter(f"{value!r} is no spec such as r=16,dropout=0.05; a target stands before a bare --lora")
    return value


#: options of memory and fit: the step that is measured
STEP_OPTIONS = (
    click.option(
        "--lora",
        is_flag=False,
        flag_value="default",
        callback=_spec,
        metavar="[SPEC]",
        help="LoRA where there is none: r=16,targets=all-linear (default), dropout=0.05, dora, none.",
    ),
    click.option(
        "--optimizer", metavar="NAME", help="As TrainingArguments.optim: adamw_8bit, paged_adamw_8bit, ... (default: adamw)."
    ),
    click.option(
        "--loss",
        type=click.Choice(["full", "fused", "kept"]),
        help="Logits: full as transformers' Trainer (default), fused as TRL's, kept by a loop that holds the outputs.",
    ),
    click.option("--accumulation", type=click.IntRange(min=1), help="Batches before each step of the optimizer (default: 1)."),
    click.option("--attention", type=click.Choice(["eager", "sdpa"]), help="Attention implementation (default: the model's)."),
    click.option(
        "--gpus", type=click.IntRange(min=1), help="Cards of the run (default: 1); the figures are those of one rank."
    ),
    click.option(
        "--strategy", metavar="NAME", help="ddp (default for several cards), fsdp1, fsdp2, zero1, zero2, zero3, device_map, tp."
    ),
    click.option("--offload", is_flag=True, help="Sharded weights lie in host memory."),
)


def _split(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    parts = tuple(part.strip() for item in value for part in item.split(",") if part.strip())
    if value and not parts:
        raise click.BadParameter("names no rule; ALL names every one")
    return parts


#: options that decide which files and settings a run takes; the command makes a Config of them
FILE_OPTIONS = (
    click.option("--exclude", multiple=True, metavar="PATTERN", help="What audits of folders leave out, as in a .gitignore."),
    click.option("--force-exclude", is_flag=True, help="Leave it out where it is named as a target too."),
    click.option(
        "--config", "config_", multiple=True, metavar="FILE", help="The settings: a TOML file, or 'key = value' (repeatable)."
    ),
    click.option("--show-settings", is_flag=True, help="Print the settings of this run, and run nothing."),
)


def _targets_of(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # only a shell that completes needs it

    return [CompletionItem(incomplete, type="file")]


CHECK_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("targets", nargs=-1, metavar="TARGET...", shell_complete=_targets_of),
    click.option("--fix", is_flag=True, help="Apply safe fixes, audit again, and run one training step."),
    click.option("--unsafe-fixes", is_flag=True, help="With --fix, apply unsafe fixes too."),
    click.option("--diff", is_flag=True, help="Show the edits that --fix would make, and make none."),
    click.option(
        "--norms",
        type=click.Choice(["transparent", "peft", "keep"]),
        default="transparent",
        help="What --fix does about norms: float32 inside and the same dtype outside (default), as PEFT's prepare, nothing.",
    ),
    click.option("--output", type=click.Path(dir_okay=False), help="Where --fix writes a checkpoint's edits (kbitlint.json)."),
    click.option(
        "--probe-batch",
        metavar="N",
        type=click.IntRange(min=1),
        default=2,
        help="Sequences in the step after --fix (default: 2).",
    ),
    click.option(
        "--probe-seq", metavar="N", type=click.IntRange(min=2), default=16, help="Tokens a sequence in it (default: 16)."
    ),
    click.option("--device", metavar="DEVICE", help="Where --fix works: cuda (default; AMD's too), cuda:1, xpu, mps, cpu."),
    RUN_OPTION,
    click.option("--trace/--no-trace", default=True, help="Run a training step without weights (default), or do not."),
    click.option("--add-ignore", is_flag=True, help="Write a comment that silences it beside each violation."),
    click.option("--select", multiple=True, callback=_split, metavar="CODE", help="Rules to run: KB101, KB4, a slug or ALL."),
    click.option("--ignore", multiple=True, callback=_split, metavar="CODE", help="Rules not to run."),
    click.option("--output-format", "--format", "format_", type=click.Choice(FORMATS), default="text", help="How to report."),
    click.option("--statistics", is_flag=True, help="Show how often each rule was broken, and nothing else."),
    click.option("--quiet", "-q", is_flag=True, help="Print violations and errors only."),
    click.option(
        "--stdin-filename", metavar="FILE", help="The name of the text that the target - reads from the standard input."
    ),
    *FILE_OPTIONS,
    click.option("--no-cache", is_flag=True, help="Audit every file of a folder anew, and keep no result."),
    *SUPPRESSING_OPTIONS,
    RANK_OPTION,
    *JOBS_OPTIONS,
    click.option("--fail-on", type=click.Choice(_SEVERITIES), help="Least severity for exit code 1 (default: warning)."),
    click.option("--exit-zero", is_flag=True, help="Leave with 0 although violations are left."),
    click.option("--exit-non-zero-on-fix", is_flag=True, help="Leave with 1 if --fix changed something."),
    *OPENING_OPTIONS,
)


_OF_REHEARSALS = frozenset(
    (
        *(
            "run",
            "trace",
            "select",
            "ignore",
            "format_",
            "baseline",
            "write_baseline",
            "prune_baseline",
            "fail_on",
            "exit_zero",
            "exit_non_zero_on_fix",
            "fix",
            "unsafe_fixes",
        ),
        *("amp", "training", "trust_remote_code", "output_file", "verbose", "statistics", "quiet"),
    )
)


def _name_of(option: Callable[[Any], Any]) -> str:
    """Return the name of the parameter that an option decorator adds."""

    def bare() -> None:
        return None

    option(bare)
    return str(bare.__click_params__[0].name)  # type: ignore[attr-defined]  # where click keeps them


#: options of rehearse alone; the rest are those of check
REHEARSAL_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="SCRIPT [ARGS]..."),
    click.option(
        "--device-like",
        type=click.Choice(_MACHINES),
        default="a100",
        help="The GPU that torch.cuda answers as (default: a100).",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        default=600.0,
        help="Give the script no longer than this (default: 600).",
    ),
    click.option("--memory", callback=_size, metavar="SIZE", default="8GB", help="Give it no more memory (default: 8GB)."),
    click.option(
        "--rows", type=click.IntRange(min=1), metavar="N", default=64, help="Read no more rows of a data set (default: 64)."
    ),
    click.option(
        "--allow-network",
        is_flag=True,
        help="Let the script open connections: configs and tokenizers come from the Hub, weights do not.",
    ),
    *(option for option in CHECK_OPTIONS if _name_of(option) in _OF_REHEARSALS),
)


def with_options(options: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Return a decorator that adds options to a command, in their order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
