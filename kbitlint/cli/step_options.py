"""Options that memory and fit share: the training step that is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.audit.options import DEFAULT_LORA
from kbitlint.cli.shared_options import SharedOptions
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from kbitlint.config import Config


@dataclass(frozen=True, slots=True)
class StepOptions(SharedOptions):
    """The arguments that describe a step, as click parses them."""

    lora: str | None
    batch: int | None
    seq_len: int | None
    optimizer: str | None
    loss: str | None
    accumulation: int | None
    attention: str | None
    gpus: int | None
    strategy: str | None
    offload: bool
    format_: str

    def step(self, settings: Config) -> dict[str, Any]:
        """Return the arguments of ``kbitlint.memory`` and ``kbitlint.fit`` that say what is opened, and which step it takes."""
        return {
            "optimizer": self.optimizer,
            "batch": self.batch,
            "seq_len": self.seq_len,
            "loss": self.loss,
            "accumulation": self.accumulation,
            "attention": self.attention,
            "gpus": self.gpus,
            "strategy": self.strategy,
            "offload": self.offload,
            **self.arguments(settings),
            **({} if self.lora is None else {"lora": {"default": DEFAULT_LORA, "none": None}.get(self.lora, self.lora)}),
        }
