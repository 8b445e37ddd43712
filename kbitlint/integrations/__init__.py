"""Integrations with the processes that train: transformers' Trainer, and the ranks of torch.distributed."""
