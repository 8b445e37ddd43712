"""Concepts of single layers, one file for each: norms, quantized layers, adapters, checkpointing, experts, heads."""
