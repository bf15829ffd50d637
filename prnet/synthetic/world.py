"""The stream of synthetic samples: sample k of seed s is the same wherever it is drawn.

Letters: B batch, S side of the picture.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from prnet.faces.embedded import load_embedded, load_head
from prnet.sample import Fit
from prnet.synthetic.backgrounds import BackgroundFolder
from prnet.synthetic.parameters import SampleParameters, World, draw
from prnet.synthetic.render.bank import Bank
from prnet.synthetic.render.renderer import Renderer, Rendering

# Samples that share textures and backgrounds.
BLOCK = 4096


class SyntheticFaces:
    """Rendered samples of one seed."""

    def __init__(
        self,
        world: World,
        seed: int = 0,
        *,
        size: int = 256,
        textures_per_block: int = 48,
        backgrounds_per_block: int = 64,
        backgrounds: Path | str | None = None,
    ) -> None:
        """`backgrounds` is a folder of pictures to put behind the faces; None makes them up.

        Raises:
            ValueError: a count below 1 or a size below 32 px.
            FileNotFoundError: the folder of backgrounds is missing or empty.
        """
        if textures_per_block < 1 or backgrounds_per_block < 1:
            raise ValueError(
                f"got {textures_per_block} textures and {backgrounds_per_block} backgrounds a "
                "block, expected at least 1 of each"
            )
        self.world, self.seed, self.size = world, seed, size
        self.head, self.face = load_head(), load_embedded()
        self.renderer = Renderer(self.head, self.face, size=size)
        self._num_textures, self._num_backgrounds = textures_per_block, backgrounds_per_block
        self._folder = None if backgrounds is None else BackgroundFolder(backgrounds)
        self._bank: Bank | None = None

    def parameters(self, index: int) -> SampleParameters:
        """What sample `index` is made of."""
        return draw(
            self.world,
            self.seed,
            index,
            exp_names=self.head.exp_names,
            num_textures=self._num_textures,
            num_backgrounds=self._num_backgrounds,
        )

    def texture(self, index: int) -> Tensor:
        """The layers of sample `index`'s skin within the face's window, (256 * 256, L) in [0, 1],
        rows as those of `prnet.synthetic.person.textures.skin_layers`."""
        return self.bank(index // BLOCK).window(self.parameters(index).texture)

    def fits(self, indices: Sequence[int]) -> list[Fit]:
        """The samples' fits in px of their pictures, float64."""
        return self.renderer.fits([self.parameters(index) for index in indices])

    def batch(self, indices: Sequence[int]) -> Rendering:
        """Render samples; each is the same in every batch, bit for bit.

        Raises:
            ValueError: no index, or a negative one.
        """
        if not len(indices):
            raise ValueError("indices: got none, expected at least one sample")
        items = [self.parameters(int(index)) for index in indices]
        # Runs of one block are drawn together, so that one bank is held at a time.
        parts = [
            self.renderer(list(run), self.bank(block))
            for block, run in itertools.groupby(items, lambda item: item.index // BLOCK)
        ]
        if len(parts) == 1:
            return parts[0]
        return Rendering._make(map(torch.cat, zip(*parts, strict=True)))

    def bank(self, block: int) -> Bank:
        """Textures and backgrounds of the samples from `block` x `BLOCK` on."""
        if self._bank is None or self._bank.block != block:
            self._bank = Bank(
                self.head,
                self.face,
                seed=self.seed,
                block=block,
                num_textures=self._num_textures,
                num_backgrounds=self._num_backgrounds,
                size=self.size,
                folder=self._folder,
            )
        return self._bank
