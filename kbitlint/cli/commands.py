"""The commands of ``kbitlint`` and their help. Each command passes its options on and decides nothing.

Imports of what a command runs are inside it, so that ``--version`` and ``--help`` import click and little else.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from kbitlint import __version__
from kbitlint.cli.exits import EXIT_FAILED
from kbitlint.cli.group import Commands
from kbitlint.cli.options import CHECK_OPTIONS, OPENING_OPTIONS, REHEARSAL_OPTIONS, STEP_OPTIONS, with_options
from kbitlint.cli.terminal import color, escape, escape_lines, width
from kbitlint.output.formats import FIT as FIT_FORMATS
from kbitlint.output.formats import MEMORY as MEMORY_FORMATS
from kbitlint.runtime import import_paths

EXIT_HELP = """\b
Exit codes: 0 clean, 1 violations at or above --fail-on are left,
2 kbitlint could not do its job (usage, configuration, unreadable target,
crash, nothing checked, a report that could not be written), 130 Ctrl-C."""


@click.group(
    cls=Commands,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_HELP,
)
@click.version_option(__version__, prog_name="kbitlint", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> int | None:
    """Audit a quantized model before you fine-tune it, fix it, and prove it with a training step."""
    context.color = color() or None  # click removes the colours of what is no terminal, FORCE_COLOR or not
    if context.invoked_subcommand is not None:
        return None
    click.echo(context.get_help())
    return EXIT_FAILED


@main.command(epilog=EXIT_HELP, short_help="Audit targets; with --fix, repair them too.")
@with_options(CHECK_OPTIONS)
def check(targets: tuple[str, ...], **options: Any) -> int:
    """Audit scripts, notebooks, configurations and folders of them, checkpoints, Hub ids, and functions.

    A checkpoint is a folder or a Hub id, a function is file.py:function or pkg.mod:function. A function is run, with
    your rights. The target - is a script on the standard input.

    Without a target those of [tool.kbitlint] in the nearest pyproject.toml are audited, else this folder. The functions
    among them are run: in a project that you do not trust, give --no-run.
    """
    from kbitlint.cli import settings as of_run

    given = {name: options.pop(name) for name in ("exclude", "force_exclude")}
    settings = of_run.settings_of(options.pop("config_"), **given)
    if options.pop("show_settings"):
        rules = {name: options[name] or getattr(settings, name) for name in ("select", "ignore")}
        of_run.show(dataclasses.replace(settings, **rules))
        return 0
    chosen = targets or settings.targets or (".",)
    with import_paths.closed_to(import_paths.reached_by(chosen)):
        from kbitlint.cli.applicable import must_apply
        from kbitlint.cli.check import check_targets
        from kbitlint.cli.check_options import CheckOptions

        must_apply(click.get_current_context(), chosen)
        return check_targets(targets, CheckOptions(**options), settings)


@main.command(
    epilog=EXIT_HELP,
    short_help="Run a training script without weights, GPU or data.",
    context_settings={"allow_interspersed_args": False},
)
@with_options(REHEARSAL_OPTIONS)
def rehearse(words: tuple[str, ...], **options: Any) -> int:
    """Run a training script to its first training step and behind it, without weights, GPU or data.

    SCRIPT is a script or notebook, and what follows are its arguments. Or give the whole command:

    \b
    kbitlint rehearse train.py --model meta-llama/Llama-3.1-8B
    kbitlint rehearse -- accelerate launch --num_processes 4 train.py --flag

    The script is run, with your rights, in a process of its own. It writes into a temporary folder only, opens no
    connection without --allow-network, and ends at its limits. Options of kbitlint stand before SCRIPT. With --fix, the
    script is repaired first where its text shows the cause, and then rehearsed.
    """  # noqa: D301  # click reads the backspace as: keep these lines
    import shlex

    from kbitlint import config

    settings = config.load(config.find(Path.cwd()))
    with import_paths.closed_to(import_paths.reached_by(words)):
        from kbitlint.cli.rehearse import rehearse_command

        return rehearse_command(shlex.join(words), options, settings)


@main.command(epilog="Exit codes: 0 measured, 2 kbitlint could not do its job.", short_help="What training takes in memory.")
@click.argument("target")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@click.option("--batch", type=click.IntRange(min=1, max=2**20), help="Sequences in a batch (default: 1).")
@click.option("--seq-len", type=click.IntRange(min=2), help="Tokens in a sequence (default: 2048).")
@click.option("--every", type=click.IntRange(min=2), default=2, help="Also with every n-th layer checkpointed (default: 2).")
@with_options(STEP_OPTIONS)
@click.option("--format", "format_", type=click.Choice(MEMORY_FORMATS), default="text", help="How to report.")
@with_options(OPENING_OPTIONS)
def memory(target: str, argv: tuple[str, ...], **options: Any) -> None:
    """Measure what one training step takes: as it is, after PEFT's prepare, after kbitlint's fix.

    The step is run without weights, so it needs no GPU, whatever the size. A script is rehearsed, and its training is
    measured. Its arguments follow --.
    """
    with import_paths.closed_to(import_paths.reached_by([target, *argv])):
        from kbitlint import config
        from kbitlint.cli.memory import MemoryOptions, measure

        measure((target, *argv), MemoryOptions(**options), config.load(config.find(Path.cwd())))


@main.command(
    epilog="Exit codes: 0 it fits, 1 it does not, 2 kbitlint could not do its job.", short_help="Does this run fit that card?"
)
@click.argument("target")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@click.option("--fix", is_flag=True, help="Write the changes that make it fit into the script, if its settings make them.")
@click.option("--unsafe-fixes", is_flag=True, help="With --fix, also shorten the length or halve the rank.")
@click.option("--gpu", required=True, metavar="CARD", help="A card (4090, A100-40, H100) or its size (24GB).")
@click.option(
    "--checkpointing",
    type=click.Choice(["none", "all"]),
    is_flag=False,
    flag_value="all",
    help="Activation checkpointing: all of the layers if no value follows. Default: that of the model or script, else none.",
)
@click.option("--batch", type=click.IntRange(min=1, max=2**20), help="Sequences in a batch of one card (default: 1).")
@click.option("--seq-len", type=click.IntRange(min=2), help="Tokens in a sequence (default: 2048).")
@with_options(STEP_OPTIONS)
@click.option("--format", "format_", type=click.Choice(FIT_FORMATS), default="text", help="How to report.")
@with_options(OPENING_OPTIONS)
def fit(target: str, argv: tuple[str, ...], **options: Any) -> int:
    """Tell whether a run fits a card, and the largest batch that does.

    If it does not fit, the cheapest changes that make it fit follow, each with its bytes and with what to paste.
    A script is rehearsed, and its training is measured. Its arguments follow --. With --fix, its settings are changed.
    """
    with import_paths.closed_to(import_paths.reached_by([target, *argv])):
        from kbitlint import config
        from kbitlint.cli.fit import FitOptions, search

        return search((target, *argv), FitOptions(**options), config.load(config.find(Path.cwd())))


@main.command()
@click.option("--output-format", "--format", "format_", type=click.Choice(["text", "json"]), default="text", help="How.")
def rules(format_: str) -> None:
    """List all rules."""
    from kbitlint import rule_docs
    from kbitlint.registry import all_rules, broken_packs

    for pack in broken_packs():
        click.echo(escape(f"kbitlint: warning: {pack}"), err=True)
    if format_ == "json":
        click.echo(rule_docs.as_json(all_rules()))
        return
    click.echo("\n".join(map(rule_docs.entry, all_rules())))


@main.command(short_help="Print a rule, or what a message or log means.")
@click.argument("rules", nargs=-1, required=True, metavar="RULE|MESSAGE|FILE...")
def explain(rules: tuple[str, ...]) -> None:
    """Print the documents of rules, by code or slug; or what a warning, an error, a log or a trainer_state.json means.

    A message is pasted in quotes. - reads the standard input: train.py 2>&1 | kbitlint explain -
    """
    from kbitlint import registry, rule_docs
    from kbitlint.cli import diagnosis

    if not diagnosis.is_rules(rules):
        click.echo(diagnosis.diagnose(rules, width()))
        return
    found = [registry.find(rule) for rule in rules]
    click.echo("\n".join(map(rule_docs.explain, found)), nl=False)


@main.command("new-rule", short_help="Write a rule of your own, and its test.")
@click.argument("slug")
@click.option("--code", required=True, help="Capital letters and three digits: HOU001.")
@click.option("--package", required=True, help="The package of your rule pack, in this folder; made if it is not there.")
@click.option("--surface", type=click.Choice(["model", "source"]), default="model", help="What it reads: models or scripts.")
def new_rule(slug: str, code: str, package: str, surface: str) -> None:
    """Write a rule and its test, which run and are yours to edit: docs/rule-packs.md explains them."""
    from kbitlint.cli import new_rule as files

    for line in files.create(Path.cwd(), package, slug, code, surface):
        click.echo(line)


@main.command(short_help="Serve an editor: findings, fixes and rules while you type.")
def lsp() -> None:
    """Serve an editor over the standard streams with the Language Server Protocol (needs kbitlint[lsp])."""
    from kbitlint.extras import require

    require("pygls", "kbitlint lsp", "lsp")
    from kbitlint.lsp import main as serve

    serve()


@main.command(
    epilog="Exit codes: 0 the adapter is in the weights, 1 it is not, or not alone, 2 kbitlint could not tell.",
    short_help="Is the adapter in these merged weights?",
)
@click.argument("merged", type=click.Path(path_type=Path))
@click.option("--adapter", required=True, type=click.Path(path_type=Path), help="The folder of the adapter.")
@click.option(
    "--base", type=click.Path(path_type=Path), help="The folder of the base (default: the one that the adapter names)."
)
@click.option("--output-format", "--format", "format_", type=click.Choice(["text", "json"]), default="text", help="How.")
def merged(merged: Path, adapter: Path, base: Path | None, format_: str) -> int:
    """Compare a merged checkpoint with its base and its adapter: headers, then some rows of each weight.

    It finds a merge that was lost, done twice, or rounded by 4-bit packing. torch is not needed.
    """
    from kbitlint.files.checkpoint import base_of_adapter
    from kbitlint.files.merged import compare
    from kbitlint.output import merged as output

    seen = compare(merged, Path(base_of_adapter(adapter)) if base is None else base, adapter)
    name = str(merged)
    click.echo(output.render_json(name, seen) if format_ == "json" else escape_lines(output.render_text(name, seen, width())))
    return (1 if list(output.findings_of(seen)) else 0) if output.is_known(seen) else EXIT_FAILED


@main.command(short_help="Installed versions, and what they allow.")
@click.option("--output-format", "--format", "format_", type=click.Choice(["text", "json"]), default="text", help="How.")
def env(format_: str) -> int:
    """Tell whether the installed versions go together, and which quantization, strategies and features they allow.

    The exit code is 1 if a package requires another version than the installed one.
    """
    from kbitlint.cli.env import environment

    found = environment()
    click.echo(found.as_json() if format_ == "json" else found.as_text(width(), color=color()))
    return 1 if found.conflicts else 0


@main.command("config", short_help="Print the configuration that applies here.")
def show_config() -> None:
    """Print the configuration that applies in this folder, and where it comes from."""
    from kbitlint.cli import settings

    settings.show(settings.settings_of())


@main.command(short_help="Complete commands, options and files in your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option("--install", is_flag=True, help="Write the script where the shell finds it.")
def completion(shell: str, install: bool) -> None:  # noqa: FBT001  # as click passes it
    """Print the completion script of a shell, or install it."""
    from kbitlint.cli import completion as scripts

    click.echo(scripts.install(main, shell) if install else scripts.script(main, shell), nl=install)


@main.command(short_help="Set up a project: settings, pre-commit, baseline.")
@click.option("--run", is_flag=True, help="Run the functions that build models too, without weights, and list them.")
@click.option("--no-baseline", "baseline", flag_value=False, default=True, type=bool, help="Accept no violation.")
def init(run: bool, baseline: bool) -> None:  # noqa: FBT001  # as click passes them
    """Write [tool.kbitlint], pre-commit entries and a baseline for the project in this folder.

    What is there is audited first, and the report shown: scripts, notebooks, configurations, checkpoints and adapters.
    """
    from kbitlint.cli.adoption import adopt

    adopt(Path.cwd(), run=run, baseline=baseline)


@main.command(short_help="The main job on a tiny Llama, in 15 seconds.")
@click.option("--device", metavar="DEVICE", help="Where to run it: cuda if there is one (default), else cpu.")
def demo(device: str | None) -> int:
    """Quantize a tiny Llama, audit it, fix it, attach LoRA and train one step."""
    from kbitlint.cli.demo import run

    return run(device, click.echo, color=color(), width=width())
