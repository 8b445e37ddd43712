"""One run of ``kbitlint memory``: the options, the measurement, the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kbitlint import api
from kbitlint.audit.options import DEFAULT_LORA
from kbitlint.cli.inputs import must_be_no_input
from kbitlint.cli.shared_options import SharedOptions
from kbitlint.cli.terminal import progress, reserve_stdout, text_layout, write_report
from kbitlint.output import formats

if TYPE_CHECKING:
    from kbitlint.config import Config


@dataclass(frozen=True, slots=True)
class MemoryOptions(SharedOptions):
    """The arguments of ``kbitlint memory``, as click parses them, without the target."""

    lora: str | None
    batch: int | None
    seq_len: int | None
    optimizer: str | None
    every: int
    loss: str
    accumulation: int
    attention: str | None
    format_: str


def measure(target: str, options: MemoryOptions, settings: Config) -> None:
    """Measure the memory of a training step of a target, and write the report."""
    must_be_no_input(options.output_file, [target], options.other_files(settings))
    lora = options.lora or DEFAULT_LORA
    with reserve_stdout(), progress(f"measuring {target}"):
        report = api.memory(
            target,
            lora=None if lora == "none" else lora,
            optimizer=options.optimizer,
            every=options.every,
            batch=options.batch,
            seq_len=options.seq_len,
            loss=options.loss,
            accumulation=options.accumulation,
            attention=options.attention,
            **options.arguments(settings),
        )
    colour, columns = text_layout(options.output_file)
    write_report(formats.render_memory(options.format_, report, color=colour, width=columns), options.output_file)
