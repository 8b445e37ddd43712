"""One run of ``kbitlint fit``: the options, the search, the report."""

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
class FitOptions(SharedOptions):
    """The arguments of ``kbitlint fit``, as click parses them, without the target."""

    gpu: str
    gpus: int
    strategy: str | None
    offload: bool
    checkpointing: str | None
    lora: str | None
    batch: int | None
    seq_len: int | None
    optimizer: str | None
    loss: str
    accumulation: int
    attention: str | None
    format_: str


def search(target: str, options: FitOptions, settings: Config) -> int:
    """Search what fits, write the report, and return the exit code: 0 if the run fits as it was asked for, otherwise 1."""
    must_be_no_input(options.output_file, [target], options.other_files(settings))
    lora = options.lora or DEFAULT_LORA
    with reserve_stdout(), progress(f"fitting {target}"):
        report = api.fit(
            target,
            gpu=options.gpu,
            gpus=options.gpus,
            strategy=options.strategy,
            offload=options.offload,
            checkpointing=options.checkpointing,
            lora=None if lora == "none" else lora,
            optimizer=options.optimizer,
            batch=options.batch,
            seq_len=options.seq_len,
            loss=options.loss,
            accumulation=options.accumulation,
            attention=options.attention,
            **options.arguments(settings),
        )
    colour, columns = text_layout(options.output_file)
    write_report(formats.render_fit(options.format_, report, color=colour, width=columns), options.output_file)
    return 0 if report.fits else 1
