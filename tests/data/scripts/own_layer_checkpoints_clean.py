import torch
import torch.utils.checkpoint
from torch import nn


class Encoder(nn.Module):
    def forward(self, hidden, mask=None):
        for layer in self.layers:
            hidden = torch.utils.checkpoint.checkpoint(layer, hidden, mask, use_reentrant=False)
        return hidden
