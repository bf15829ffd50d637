"""2DASL's self-critic: does a vector of parameters belong to the face in an image?

Source: Tu et al., arXiv 1903.09359, section 3.5.

Letters: B batch, H image side, P parameters, Z latent numbers.
"""

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from prnet.losses.loss import mean_over

INPUT_SIDE = 120
# Channels of the encoder's six stages; the paper counts the stages alone.
ENCODER_CHANNELS = (16, 32, 64, 64, 128, 128)
CRITIC_WIDTHS = (512, 1024, 1024)


class Critic(nn.Module):
    """A score of (image, whitened parameters): the logit of "this is the true face".

    Encoder: six times convolution, ReLU and max pooling, 120 px -> 1 x 1. Critic: four fully
    connected layers. The paper ends in a softmax, which on one unit is always 1: a sigmoid is
    meant, and its logit returned.
    """

    def __init__(self, num_parameters: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = 3
        for width in ENCODER_CHANNELS:
            stages += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        self.encoder = nn.Sequential(*stages, nn.Flatten())
        layers: list[nn.Module] = []
        size = channels + num_parameters
        for width in CRITIC_WIDTHS:
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        self.layers = nn.Sequential(*layers, nn.Linear(size, 1))

    def forward(
        self,
        image: Tensor,  # (B, 3, H, H), RGB in [0, 1]
        whitened: Tensor,  # (B, P)
    ) -> Tensor:
        """(B,)."""
        return self.judge(self.encode(image), whitened)

    def encode(self, image: Tensor) -> Tensor:  # (B, 3, H, H), RGB in [0, 1]
        """The latent z, (B, Z)."""
        side = image.shape[-1]
        if side != INPUT_SIDE:
            image = functional.interpolate(
                image, size=INPUT_SIDE, mode="bilinear", antialias=side > INPUT_SIDE
            )
        return self.encoder(2 * image - 1)

    def judge(self, latent: Tensor, whitened: Tensor) -> Tensor:  # (B, Z), (B, P)
        """(B,)."""
        return self.layers(torch.cat([latent, whitened], 1)).squeeze(1)


def critic_loss(
    true_score: Tensor,  # (B,), logits of the faces of fits
    made_score: Tensor,  # (B,), logits of what the regressor made
    *,
    true: Tensor | None = None,  # (B,), bool: images with a fit; None: all
    made: Tensor | None = None,  # (B,), bool: whose faces count as made up; None: all
) -> Tensor:
    """-L_sc, which the critic minimises: -E log D(true) - E log(1 - D(made)); 0 for none of
    either."""
    of_true = mean_over(functional.softplus(-true_score), true)
    return of_true + mean_over(functional.softplus(made_score), made)


def deception_loss(
    made_score: Tensor,  # (B,), logits
    made: Tensor | None = None,  # (B,), bool; None: all
) -> Tensor:
    """The part of L_sc that the regressor minimises, as printed: E log(1 - D(made))."""
    return -mean_over(functional.softplus(made_score), made)


def average_gradients(module: nn.Module) -> None:
    """The mean of all processes' gradients, where there are several; all have the same ones."""
    if not distributed.is_initialized():
        return
    for parameter in module.parameters():
        distributed.all_reduce(parameter.grad)
        parameter.grad /= distributed.get_world_size()
