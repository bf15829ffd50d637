"""Networks as training leaves them."""

from torch import nn


def lived_in(model: nn.Module) -> nn.Module:
    """Weights and statistics as of a trained network: no mean 0, no variance 1."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.2, 2)
            module.num_batches_tracked.fill_(7)
    return model.eval()
