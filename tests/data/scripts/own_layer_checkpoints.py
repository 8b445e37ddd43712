"""Model code with checkpoints of its own."""
import torch.nn as nn
from torch.utils.checkpoint import checkpoint


class Encoder(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, hidden, mask=None):
        for layer in self.layers:
            if self.training:
                hidden = checkpoint(layer, hidden, mask)  # fault: KB401
            else:
                hidden = layer(hidden, mask)
        return hidden
