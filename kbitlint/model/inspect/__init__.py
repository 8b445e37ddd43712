"""The walk over a model: facts that its module tree shows without a training step."""
