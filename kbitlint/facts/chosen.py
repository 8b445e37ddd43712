"""Whether somebody chose which parameters of a model train."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbitlint.facts.model import ModelFacts


def is_as_loaded(model: ModelFacts) -> bool:
    """Return whether all norms and input embeddings are trainable, as loading leaves them; no user chooses exactly these.

    A few models freeze a parameter of their own, and transformers 4 freezes the biases of packed layers. A model without
    norms and embeddings is as loaded if all its floating-point parameters are trainable.
    """
    embeddings = {embedding.path for embedding in model.embeddings}
    floating = [parameter for parameter in model.parameters if parameter.floating]
    telling = [parameter for parameter in floating if parameter.norm or parameter.module in embeddings]
    return all(parameter.requires_grad for parameter in telling or floating)


def is_chosen(model: ModelFacts) -> bool:
    """Return whether some parameters train and others do not, as nothing but a user's choice leaves them."""
    return bool(model.trainable) and not is_as_loaded(model)
