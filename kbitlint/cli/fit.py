"""One run of ``kbitlint fit``: the options, the search, the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.cli.inputs import must_be_no_input
from kbitlint.cli.step_options import StepOptions
from kbitlint.cli.terminal import progress, reserve_stdout, text_layout, write_report
from kbitlint.lazy_dataclass import dataclass
from kbitlint.output import formats
from kbitlint.rehearsal.any_target import fit

if TYPE_CHECKING:
    from kbitlint.config import Config


@dataclass(frozen=True, slots=True)
class FitOptions(StepOptions):
    """The arguments of ``kbitlint fit``, as click parses them, without the target."""

    gpu: str
    checkpointing: str | None
    fix: bool
    unsafe_fixes: bool


def search(words: tuple[str, ...], options: FitOptions, settings: Config) -> int:
    """Search what fits, write the report, and return the exit code: 0 if the run fits, with --fix the fixed one, otherwise 1.

    Args:
        words: The target, or a script with its arguments.
        options: The options.
        settings: Those of the project.

    Raises:
        KbitlintError: The target cannot be measured; or ``--fix`` is asked for, and the target is no script.
    """
    target, *argv = words
    must_be_no_input(options.output_file, words, options.other_files(settings))
    asked: dict[str, Any] = {"gpu": options.gpu, "checkpointing": options.checkpointing, **options.step(settings)}
    with reserve_stdout(), progress(f"fitting {target}"):
        report = fit(target, argv=argv, fix=options.fix, unsafe=options.unsafe_fixes, **asked)
    colour, columns = text_layout(options.output_file)
    write_report(formats.render_fit(options.format_, report, color=colour, width=columns), options.output_file)
    return 0 if report.fits else 1
