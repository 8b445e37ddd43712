"""One run of ``kbitlint fit``: the options, the search, the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint import api
from kbitlint.cli.inputs import must_be_no_input
from kbitlint.cli.step_options import StepOptions
from kbitlint.cli.terminal import progress, reserve_stdout, text_layout, write_report
from kbitlint.lazy_dataclass import dataclass
from kbitlint.output import formats

if TYPE_CHECKING:
    from kbitlint.config import Config


@dataclass(frozen=True, slots=True)
class FitOptions(StepOptions):
    """The arguments of ``kbitlint fit``, as click parses them, without the target."""

    gpu: str
    checkpointing: str | None


def search(target: str, options: FitOptions, settings: Config) -> int:
    """Search what fits, write the report, and return the exit code: 0 if the run fits as it was asked for, otherwise 1."""
    must_be_no_input(options.output_file, [target], options.other_files(settings))
    with reserve_stdout(), progress(f"fitting {target}"):
        report = api.fit(
            target,
            gpu=options.gpu,
            checkpointing=options.checkpointing,
            **options.step(settings),
        )
    colour, columns = text_layout(options.output_file)
    write_report(formats.render_fit(options.format_, report, color=colour, width=columns), options.output_file)
    return 0 if report.fits else 1
