"""Rule KB577: unscaled-latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class UnscaledLatents(Rule):
    """A denoiser is trained on latents that are not scaled.

    ## What it does

    Reports `vae.encode(...).latent_dist.sample()` in a script that adds noise to the latents and computes a loss, and that
    names neither the scaling factor of the autoencoder nor its value anywhere.

    ## Why is this bad?

    Pipelines divide by `vae.config.scaling_factor` before they decode. A Stable Diffusion model that is trained without it
    sees latents 5.5 times as large as at sampling, beside the same noise: the adapter makes its images worse.

    ## Example

    `latents = vae.encode(pixels).latent_dist.sample()`, then `scheduler.add_noise(latents, noise, t)`.

    ## Fix

    Multiply the latents by `vae.config.scaling_factor`.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/diffusers/issues/437
    """

    meta: ClassVar[Meta] = Meta(
        code="KB577",
        slug="unscaled-latents",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each encoding without a scale."""
        for fault in source.object_faults:
            if fault.kind == "latents":
                yield self.violation(
                    "the latents are not multiplied by the scaling factor of the autoencoder, as pipelines expect",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"call": fault.name},
                    fix=Fix("multiply by vae.config.scaling_factor", Safety.DISPLAY),
                )
