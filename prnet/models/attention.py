"""Attention over channels (SE) and over space (SGE).

Letters: B batch, C channels, H W height and width, S = H W, G groups.
"""

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
        # Channels last, where a group's channels are strided and the groups contiguous.
        batch, _, height, width = features.shape
        places = features.permute(0, 2, 3, 1).reshape(
            batch, height * width, -1, len(self.weight)
        )  # (B, S, C / G, G)
        alike = (places * places.mean(1, keepdim=True)).sum(2)  # (B, S, G)
        std, mean = torch.std_mean(alike, 1, keepdim=True, correction=0)
        alike = (alike - mean) / (std + STD_EPS)
        gain = torch.sigmoid(torch.addcmul(self.bias, self.weight, alike))  # (B, S, G)
        enhanced = (places * gain[:, :, None]).view(batch, height, width, -1)
        return enhanced.permute(0, 3, 1, 2)
