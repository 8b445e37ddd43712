"""The keys of a checkpoint's ``config.json`` that count its parts, by architecture."""

from __future__ import annotations

#: keys for the number of experts; transformers 5 stacks the experts' matrices in one parameter
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")

#: keys for the number of blocks in a stack
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers")
