"""Where training runs: transformers' Trainer, and the ranks of torch.distributed."""
