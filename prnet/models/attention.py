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
        self.traced_in_rows = True  # OpenVINO is faster without

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        if torch.compiler.is_compiling() and not self.training and self.traced_in_rows:
            return self.in_rows(features)
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

    def in_rows(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        """`forward` for ONNX Runtime: a group's channels are rows, one product adds them, and
        nothing is split or repeated."""
        groups, (_, channels, height, width) = len(self.weight), features.shape
        members, row = channels // groups, groups * height * width
        alike = features * features.mean((2, 3), keepdim=True)
        if members > 1:
            ones = torch.ones(1, members, dtype=features.dtype)
            alike = (ones @ alike.reshape(-1, members, row)).reshape(-1, groups, height, width)
        alike = alike - alike.mean((2, 3), keepdim=True)
        std = (alike * alike).mean((2, 3), keepdim=True).sqrt()
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        gain = torch.sigmoid(alike * (weight / (std + STD_EPS)) + bias)
        if members == 1:
            return features * gain
        rows = features.reshape(-1, members, row) * gain.reshape(-1, 1, row)
        return rows.reshape(features.shape)
