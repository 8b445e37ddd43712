"""The commands of ``kbitlint`` and their help. Each command passes its options on and decides nothing.

Imports of what a command runs are inside it, so that ``--version`` and ``--help`` import click and little else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kbitlint import __version__
from kbitlint.cli.exits import CommandLine
from kbitlint.cli.options import CHECK_OPTIONS, OPENING_OPTIONS, STEP_OPTIONS, with_options
from kbitlint.cli.terminal import color, escape, width
from kbitlint.errors import did_you_mean
from kbitlint.output.formats import FIT as FIT_FORMATS
from kbitlint.output.formats import MEMORY as MEMORY_FORMATS
from kbitlint.runtime import import_paths
from kbitlint.runtime.optimized_python import keep_docstrings

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


@main.command(epilog=EXIT_HELP, short_help="Audit targets; with --fix, repair them too.")
@with_options(CHECK_OPTIONS)
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
        from kbitlint.cli.check import CheckOptions, check_targets

        return check_targets(targets, CheckOptions(**options), settings)


@main.command(epilog="Exit codes: 0 measured, 2 kbitlint could not do its job.", short_help="What training takes in memory.")
@click.argument("target")
@click.option("--batch", type=click.IntRange(min=1), help="Sequences in a batch (default: 1).")
@click.option("--seq-len", type=click.IntRange(min=2), help="Tokens in a sequence (default: 2048).")
@click.option("--every", type=click.IntRange(min=2), default=2, help="Also with every n-th layer checkpointed (default: 2).")
@with_options(STEP_OPTIONS)
@click.option("--format", "format_", type=click.Choice(MEMORY_FORMATS), default="text", help="How to report.")
@with_options(OPENING_OPTIONS)
def memory(target: str, **options: Any) -> None:
    """Measure what one training step takes: as it is, after PEFT's prepare, after kbitlint's fix.

    The step is run without weights, so it needs no GPU, whatever the size.
    """
    with import_paths.closed_to(import_paths.reached_by([target])):
        from kbitlint import config
        from kbitlint.cli.memory import MemoryOptions, measure

        measure(target, MemoryOptions(**options), config.load(config.find(Path.cwd())))


@main.command(
    epilog="Exit codes: 0 it fits, 1 it does not, 2 kbitlint could not do its job.", short_help="Does this run fit that card?"
)
@click.argument("target")
@click.option("--gpu", required=True, metavar="CARD", help="A card (4090, A100-40, H100) or its size (24GB).")
@click.option("--gpus", type=click.IntRange(min=1), default=1, help="Cards of that kind.")
@click.option(
    "--strategy", metavar="NAME", help="ddp (default for several cards), fsdp1, fsdp2, zero1, zero2, zero3, device_map."
)
@click.option("--offload", is_flag=True, help="Sharded weights lie in host memory.")
@click.option("--checkpointing", type=click.Choice(["none", "all"]), help="Activation checkpointing (default: none).")
@click.option("--batch", type=click.IntRange(min=1), help="Sequences in a batch of one card (default: 1).")
@click.option("--seq-len", type=click.IntRange(min=2), help="Tokens in a sequence (default: 2048).")
@with_options(STEP_OPTIONS)
@click.option("--format", "format_", type=click.Choice(FIT_FORMATS), default="text", help="How to report.")
@with_options(OPENING_OPTIONS)
def fit(target: str, **options: Any) -> int:
    """Tell whether a run fits a card, and the largest batch that does.

    If it does not fit, the cheapest changes that make it fit follow, each with its bytes and with what to paste.
    """
    with import_paths.closed_to(import_paths.reached_by([target])):
        from kbitlint import config
        from kbitlint.cli.fit import FitOptions, search

        return search(target, FitOptions(**options), config.load(config.find(Path.cwd())))


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
    from kbitlint import registry, rule_docs

    click.echo(rule_docs.explain(registry.find(rule)), nl=False)


@main.command("config", short_help="Print the configuration that applies here.")
def show_config() -> None:
    """Print the configuration that applies in this folder, and where it comes from."""
    import dataclasses

    from kbitlint import config, registry

    settings = config.load(config.find(Path.cwd()))
    registry.select(settings.select, settings.ignore, dict(settings.options))
    click.echo(f"# {escape(settings.file or 'no pyproject.toml with [tool.kbitlint]: defaults')}")
    for field in dataclasses.fields(settings):
        if field.name != "file":
            click.echo(f"{field.name.replace('_', '-')} = {config.as_toml(settings, field.name)}")


@main.command()
def init() -> None:
    """Write [tool.kbitlint] and pre-commit entries for the project in this folder."""
    from kbitlint.cli import init as project

    for line in project.init(Path.cwd()):
        click.echo(line)


@main.command(short_help="The main job on a tiny Llama, in 15 seconds.")
@click.option("--device", metavar="DEVICE", help="Where to run it: cuda if there is one (default), else cpu.")
def demo(device: str | None) -> int:
    """Quantize a tiny Llama, audit it, fix it, attach LoRA and train one step."""
    from kbitlint.cli.demo import run

    return run(device, click.echo, color=color(), width=width())
