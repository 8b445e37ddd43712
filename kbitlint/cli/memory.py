"""One run of ``kbitlint memory``: the options, the measurement, the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.cli.inputs import must_be_no_input
from kbitlint.cli.step_options import StepOptions
from kbitlint.cli.terminal import progress, reserve_stdout, text_layout, write_report
from kbitlint.lazy_dataclass import dataclass
from kbitlint.output import formats
from kbitlint.rehearsal.any_target import memory

if TYPE_CHECKING:
    from kbitlint.config import Config


@dataclass(frozen=True, slots=True)
class MemoryOptions(StepOptions):
    """The arguments of ``kbitlint memory``, as click parses them, without the target."""

    every: int


def measure(words: tuple[str, ...], options: MemoryOptions, settings: Config) -> None:
    """Measure the memory of a training step of a target, or of a script with its arguments, and write the report."""
    target, *argv = words
    must_be_no_input(options.output_file, words, options.other_files(settings))
    with reserve_stdout(), progress(f"measuring {target}") as told:
        report = memory(target, argv=argv, every=options.every, told=told, **options.step(settings))
    colour, columns = text_layout(options.output_file)
    write_report(formats.render_memory(options.format_, report, color=colour, width=columns), options.output_file)
