"""The command line: argv -> Config -> api -> reporter -> exit code. No decisions are made here."""

from __future__ import annotations

from kbitlint import interrupts

with interrupts.while_importing():
    import os
    import sys
    from pathlib import Path
    from typing import TYPE_CHECKING, Any

import click

from kbitlint import __version__, import_paths
from kbitlint.errors import KbitlintError, did_you_mean
from kbitlint.exits import EXIT_FAILED, CommandLine
from kbitlint.interpreter import keep_docstrings
from kbitlint.output.formats import MEMORY as MEMORY_FORMATS
from kbitlint.output.formats import NAMES as FORMATS
from kbitlint.running import (
    JOBS_OPTIONS,
    RANK_OPTION,
    RUN_OPTION,
    SUPPRESSING_OPTIONS,
    TRAINING_OPTION,
    context_of,
    others_read,
    say_what_is_run,
    settled,
)
from kbitlint.streams import (
    color,
    deliver,
    kept_for_the_report,
    line_of,
    looks,
    progress,
    show_traceback,
    shown,
    shown_lines,
    width,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kbitlint.config import Config
    from kbitlint.report import Report
    from kbitlint.result import Failure
    from kbitlint.running import Settled
    from kbitlint.violation import Severity

#: the argument of --amp -> TrainingContext.autocast_dtype
AMP = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}
EXIT_CLEAN, EXIT_VIOLATIONS = 0, 1
EXIT_HELP = """\b
Exit codes: 0 clean, 1 violations at or above --fail-on are left,
2 kbitlint could not do its job (usage, configuration, unreadable target,
crash, nothing checked, a report that could not be written), 130 Ctrl-C."""


class _Commands(CommandLine):
    """A group in which ``kbitlint --fix TARGET`` means ``kbitlint check --fix TARGET``."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        keep_docstrings()
        return super().main(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "-h", "--version"}
        if args and args[0].startswith("-") and not own & set(args):
            rest = list(args)
            if "check" in rest and not Path("check").exists():  # kbitlint --verbose check TARGET
                rest.remove("check")
            args = ["check", *rest]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            hint = did_you_mean(args[0], self.commands)
            ctx.fail(f"there is no command {args[0]!r}{hint}; to audit a target: kbitlint check {args[0]}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EXIT_HELP
)
@click.version_option(__version__, prog_name="kbitlint", message="%(prog)s %(version)s")
def main() -> None:
    """Audit a quantized model before you fine-tune it, fix it, and prove it with a training step."""


_SEVERITIES = ("info", "warning", "error")


def _split(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for item in value for part in item.split(",") if part.strip())


#: how a target is opened and where the report goes
_OPENING_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--quantize",
        type=click.Choice(["nf4", "fp4", "int8", "none"]),
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

_CHECK_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("targets", nargs=-1, metavar="TARGET..."),
    click.option("--fix", is_flag=True, help="Apply safe fixes, audit again, and run one training step."),
    click.option("--unsafe-fixes", is_flag=True, help="Apply unsafe fixes too; implies --fix."),
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
    click.option("--device", metavar="DEVICE", help="Where --fix works: cuda (default), cuda:1, cpu."),
    RUN_OPTION,
    click.option("--trace/--no-trace", default=True, help="Run a training step without weights (default), or do not."),
    click.option("--select", multiple=True, callback=_split, metavar="CODE", help="Rules to run: KB101, KB4, a slug or ALL."),
    click.option("--ignore", multiple=True, callback=_split, metavar="CODE", help="Rules not to run."),
    click.option("--format", "format_", type=click.Choice(FORMATS), default="text", help="How to report."),
    *SUPPRESSING_OPTIONS,
    RANK_OPTION,
    *JOBS_OPTIONS,
    click.option("--fail-on", type=click.Choice(_SEVERITIES), help="Least severity for exit code 1 (default: warning)."),
    click.option("--exit-zero", is_flag=True, help="Leave with 0 although violations are left."),
    *_OPENING_OPTIONS,
)


def _with(options: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@main.command(epilog=EXIT_HELP, short_help="Audit targets; with --fix, repair them too.")
@_with(_CHECK_OPTIONS)
def check(targets: tuple[str, ...], **options: Any) -> int:
    """Audit scripts, notebooks, configurations and folders of them, checkpoints, Hub ids, and functions.

    A checkpoint is a folder or a Hub id, a function is file.py:function or pkg.mod:function. A function is run, with
    your rights.

    Without a target those of [tool.kbitlint] in the nearest pyproject.toml are audited, and the functions among them
    are run: in a project that you do not trust, give --no-run.
    """
    from kbitlint import config

    settings = config.load(config.find(Path.cwd()))
    with import_paths.closed_to(import_paths.reached_by(targets or settings.targets)):
        return _check(targets, options, settings)


def _check(targets: tuple[str, ...], options: dict[str, Any], settings: Config) -> int:
    import gc

    from kbitlint.inputs import must_be_no_input
    from kbitlint.violation import Severity

    gc.set_threshold(10_000)  # a collection walks all that torch and transformers import: an eighth of a folder's audit
    named = bool(targets)
    targets = targets or settings.targets
    if not targets:
        raise click.UsageError("name a target, or list some under [tool.kbitlint] targets in pyproject.toml")
    must_be_no_input(options["output_file"], targets, others_read(settings, options))
    opened = {
        "select": options["select"] or settings.select,
        "ignore": options["ignore"] or settings.ignore,
        "rule_options": dict(settings.options),
        "quantize": options["quantize"] or settings.quantize,
        "meta": settings.meta if options["meta"] is None else options["meta"],
        "run": options["run"],
        "trust_remote_code": options["trust_remote_code"],
        "trace": options["trace"],
        "limits": settings.limits,
        "context": context_of(settings, options, AMP.get(options["amp"])),
        **{name: options[name] for name in ("norms", "output", "probe_batch", "probe_seq")},
        **dict.fromkeys(("outline", "memory"), options["format_"] == "html"),
    }
    if options["run"] and not named:
        say_what_is_run(settings)
    reports, failures, speaks = _audited(targets, opened, options, options["device"] or settings.device)
    result = settled(reports, settings, options, everything=targets == settings.targets)
    fail_on = Severity(options["fail_on"]) if options["fail_on"] else settings.fail_on
    if speaks:
        _write(result, failures, options, fail_on)
    for line in [*result.lines, *(failure.error for failure in failures)] if speaks else ():
        click.echo(shown(f"kbitlint: {line}"), err=True)
    codes = [report.exit_code(fail_on) for report in result.reports] + [EXIT_FAILED] * len(failures)
    worst = max(codes, default=EXIT_FAILED)
    return EXIT_CLEAN if (options["exit_zero"] or result.accepted) and worst == EXIT_VIOLATIONS else worst


def _audited(
    targets: Sequence[str], opened: dict[str, Any], options: dict[str, Any], device: str | None
) -> tuple[list[Report], list[Failure], bool]:
    """(reports, failures, whether this process is the one that shows them)."""
    from kbitlint import api
    from kbitlint.report import Report
    from kbitlint.result import Failure

    if options["output"] is not None and len(targets) > 1:
        raise click.UsageError("--output is one file: name one target")
    unsafe = options["unsafe_fixes"]
    fixing = (options["fix"] or unsafe) and not options["diff"]
    if any(options[name] is not None for name in ("jobs", "target_timeout", "target_memory")):
        if fixing:
            raise click.UsageError("--jobs, --target-timeout and --target-memory audit; they cannot be used with --fix")
        many = _isolated(targets, opened, options)
        return [one for one in many if isinstance(one, Report)], [one for one in many if isinstance(one, Failure)], True
    reports: list[Report] = []
    failures: list[Failure] = []
    speaks = True
    for target in targets:
        try:
            with kept_for_the_report(), progress(f"{'fixing' if fixing else 'auditing'} {target}"):
                if fixing:
                    reports.append(api.fix(target, unsafe=unsafe, device=device, **opened))
                elif "WORLD_SIZE" in os.environ:
                    from kbitlint.integrations import ranks

                    joint = ranks.check(target, timeout=options["rank_timeout"], **opened, plan=options["diff"])
                    reports.append(joint.report)
                    speaks = joint.speaks
                else:
                    reports.append(api.check(target, **opened, plan=options["diff"]))
        except KbitlintError as error:
            if len(targets) == 1:
                raise
            failures.append(Failure(target, line_of(error)))
            if options["verbose"]:
                show_traceback()
    return reports, failures, speaks


def _isolated(targets: Sequence[str], opened: dict[str, Any], options: dict[str, Any]) -> list[Report | Failure]:
    from kbitlint.extras import require_model_extra
    from kbitlint.jobs import audit_many

    require_model_extra("--jobs")
    arguments = {**opened, "plan": options["diff"]}
    with progress(f"auditing {len(targets)} targets"):
        return audit_many(
            targets, arguments, jobs=options["jobs"] or 1, timeout=options["target_timeout"], memory=options["target_memory"]
        )


def _write(result: Settled, failures: Sequence[Failure], options: dict[str, Any], fail_on: Severity) -> None:
    from kbitlint.output import formats

    colour, columns = looks(options["output_file"])
    text = formats.render(
        options["format_"],
        result.reports,
        failures,
        result.unused,
        fail_on=fail_on,
        color=colour,
        width=columns,
        verbose=options["verbose"],
        timed=options["output_file"] is None and sys.stdout.isatty(),
    )
    if options["verbose"] and options["format_"] == "text":
        text += "".join(f"\n\n{shown_lines(crash.traceback)}" for report in result.reports for crash in report.crashes)
    deliver(text, options["output_file"])


@main.command(epilog="Exit codes: 0 measured, 2 kbitlint could not do its job.", short_help="What training takes in memory.")
@click.argument("target")
@click.option("--lora", metavar="SPEC", help="LoRA to attach where there is none: r=16,targets=all-linear (default) or none.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Sequences in a batch.")
@click.option("--seq-len", type=click.IntRange(min=2), default=2048, show_default=True, help="Tokens a sequence.")
@click.option("--optimizer", type=click.Choice(["adamw", "adamw8bit", "paged_adamw_8bit", "sgd"]), default="adamw")
@click.option("--every", type=click.IntRange(min=2), default=2, help="Also with every n-th layer checkpointed (default: 2).")
@click.option("--format", "format_", type=click.Choice(MEMORY_FORMATS), default="text", help="How to report.")
@_with(_OPENING_OPTIONS)
def memory(target: str, **options: Any) -> None:
    """Measure what one training step takes: as it is, after PEFT's prepare, after kbitlint's fix.

    The step is run without weights, so it needs no GPU, whatever the size.
    """
    with import_paths.closed_to(import_paths.reached_by([target])):
        _memory(target, options)


def _memory(target: str, options: dict[str, Any]) -> None:
    from kbitlint import api, config
    from kbitlint.budget import DEFAULT_LORA
    from kbitlint.inputs import must_be_no_input
    from kbitlint.output import formats

    settings = config.load(config.find(Path.cwd()))
    must_be_no_input(options["output_file"], [target], others_read(settings, options))
    lora = options["lora"] or DEFAULT_LORA
    with kept_for_the_report(), progress(f"measuring {target}"):
        report = api.memory(
            target,
            lora=None if lora == "none" else lora,
            optimizer=options["optimizer"],
            every=options["every"],
            batch=options["batch"],
            seq_len=options["seq_len"],
            quantize=options["quantize"] or settings.quantize,
            meta=settings.meta if options["meta"] is None else options["meta"],
            trust_remote_code=options["trust_remote_code"],
            context=context_of(settings, options, AMP.get(options["amp"])),
        )
    colour, columns = looks(options["output_file"])
    text = formats.render_memory(options["format_"], report, color=colour, width=columns)
    deliver(text, options["output_file"])


@main.command()
def rules() -> None:
    """List all rules."""
    from kbitlint.registry import all_rules

    for rule in all_rules():
        surfaces = ", ".join(surface.value for surface in rule.checks())
        click.echo(f"{rule.meta.code}  {rule.meta.slug:<36}{rule.meta.severity.value:<9}{surfaces}")
        click.echo(f"       {type(rule).title()}")


@main.command()
@click.argument("rule")
def explain(rule: str) -> None:
    """Print the document of a rule, by code or slug."""
    from kbitlint import docs, registry

    click.echo(docs.explain(registry.find(rule)), nl=False)


@main.command("config", short_help="Print the configuration that applies here.")
def show_config() -> None:
    """Print the configuration that applies in this folder, and where it comes from."""
    import dataclasses

    from kbitlint import config, registry

    settings = config.load(config.find(Path.cwd()))
    registry.select(settings.select, settings.ignore, dict(settings.options))
    click.echo(f"# {shown(settings.file or 'no pyproject.toml with [tool.kbitlint]: defaults')}")
    for field in dataclasses.fields(settings):
        if field.name != "file":
            click.echo(f"{field.name.replace('_', '-')} = {config.as_toml(settings, field.name)}")


@main.command()
def init() -> None:
    """Write [tool.kbitlint] and pre-commit entries for the project in this folder."""
    from kbitlint import starting

    for line in starting.init(Path.cwd()):
        click.echo(line)


@main.command(short_help="The main job on a tiny Llama, in 15 seconds.")
@click.option("--device", metavar="DEVICE", help="Where to run it: cuda if there is one (default), else cpu.")
def demo(device: str | None) -> int:
    """Quantize a tiny Llama, audit it, fix it, attach LoRA and train one step."""
    from kbitlint.demo import run

    return run(device, click.echo, color=color(), width=width())
