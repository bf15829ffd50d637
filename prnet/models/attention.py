"""Attention over channels (SE) and over space (SGE).

Letters: B batch, C channels, H W height and width, G groups.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

# SGE's, beside the standard deviation.
STD_EPS = 1e-5


class SqueezeExcitation(nn.Module):
    """A gain for each channel, from the means of all (Hu et al., CVPR 2018, eqs. 2-4)."""

    def __init__(self, channels: int, *, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction)
        self.excite = nn.Linear(channels // reduction, channels)

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        code = functional.relu(self.squeeze(features.mean((2, 3))))
        return features * torch.sigmoid(self.excite(code))[..., None, None]


class SpatialGroupEnhance(nn.Module):
    """A gain for each group and place: how alike the features there are to their mean over the
    image (Li, Hu and Yang, 2019, eqs. 1-5).

    c = <mean x, x> within the group, standardised over the places; x sigmoid(w c + b). As published
    w starts at 0 and b at 1; unlike there the variance is divided by the places, not by one less,
    so that one place is enough. Group g has the channels g, g + G, g + 2 G, ...: where they come
    from several scales, so does every group.
    """

    def __init__(self, channels: int, *, groups: int) -> None:
        """Raises ValueError unless the groups are equal."""
        super().__init__()
        if channels % groups:
            raise ValueError(f"SGE: {channels} channels do not divide into {groups} groups")
        self.weight = nn.Parameter(torch.zeros(groups))
        self.bias = nn.Parameter(torch.ones(groups))

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        # Whole images of a part of the channels, never transposed: what runs a traced network
        # keeps channels apart, and would copy them.
        groups = len(self.weight)
        weighed = features * features.mean((2, 3), keepdim=True)
        alike = functools.reduce(torch.add, weighed.split(groups, 1))  # (B, G, H, W)
        std, mean = torch.std_mean(alike, (2, 3), keepdim=True, correction=0)
        alike = (alike - mean) / (std + STD_EPS)
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        gain = torch.sigmoid(torch.addcmul(bias, weight, alike))
        return features * gain.repeat(1, features.shape[1] // groups, 1, 1)
