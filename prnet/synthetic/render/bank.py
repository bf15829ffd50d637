"""Skin textures and backgrounds that the samples of one block share.

Texture t of block b of seed s is a function of (s, b, t) alone, made when first asked for: a
process makes those that its samples use and no others.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prnet.faces.embedded import Head
from prnet.faces.face import Face
from prnet.synthetic.backgrounds import BackgroundFolder, procedural_background
from prnet.synthetic.parameters import Backdrop
from prnet.synthetic.person.skin_chart import skin_chart
from prnet.synthetic.person.textures import SKIN_LAYERS, skin_layers
from prnet.synthetic.srgb import linear_from_bytes

WINDOW_SIZE = 256
# Beyond the face's window a texture goes on with its border's texels, which fade over the margin.
MARGIN = 32
TEXTURE_SIZE = WINDOW_SIZE + 2 * MARGIN
# What a layer fades to: the unevenness has its level, everything else is absent.
PLAIN = {"detail": 0.4}
# Side of a background over the picture's: room to shift.
BACKGROUND_ROOM = 1.25
TEXTURES, BACKGROUNDS = range(2)


def texel_of(uv_coords: Tensor) -> Tensor:  # (N, 2)
    """Column and row of the texture with its margin, (N, 2)."""
    u, v = uv_coords.unbind(-1)
    last = WINDOW_SIZE - 1
    return torch.stack([MARGIN + last * u, MARGIN + last * (1 - v)], -1)


class Bank:
    """The textures and backgrounds of one block."""

    def __init__(
        self,
        head: Head,
        face: Face,
        *,
        seed: int,
        block: int,
        num_textures: int,
        num_backgrounds: int,
        size: int,
        folder: BackgroundFolder | None = None,
    ) -> None:
        self.block = block
        self._chart, self._folder, self._seed = skin_chart(head, face, WINDOW_SIZE), folder, seed
        self._made: set[tuple[int, int]] = set()
        # Half precision holds 256 levels exactly.
        self.textures = torch.zeros(
            num_textures, TEXTURE_SIZE**2, len(SKIN_LAYERS), dtype=torch.float16
        )
        side = round(BACKGROUND_ROOM * size)
        self._backgrounds = torch.zeros(num_backgrounds, 3, side, side, dtype=torch.float16)

    def _make_texture(self, number: int, generator: np.random.Generator) -> None:
        layers = skin_layers(self._chart, generator)
        window = torch.from_numpy(layers)[None] / 255
        grown = functional.pad(window, (MARGIN,) * 4, mode="replicate")[0]  # (L, size, size)
        place = torch.arange(TEXTURE_SIZE, dtype=torch.float32)
        outside = (MARGIN - place).maximum(place - (TEXTURE_SIZE - 1 - MARGIN)).clamp(min=0)
        fading = (outside.maximum(outside[:, None]) / MARGIN)[None]
        plain = torch.tensor([PLAIN.get(name, 0.0) for name in SKIN_LAYERS])[:, None, None]
        texels = torch.lerp(grown, plain, fading).flatten(1).t()
        self.textures[number] = texels.to(self.textures)

    def _make_background(self, number: int, generator: np.random.Generator) -> None:
        side = self._backgrounds.shape[-1]
        if self._folder is None:
            picture = procedural_background(generator, side)
        else:
            picture = self._folder.read(generator, side)
        self._backgrounds[number] = linear_from_bytes(picture).to(self._backgrounds)

    def require_textures(self, numbers: Sequence[int]) -> None:
        """Make sure that `textures` holds these."""
        self._require(TEXTURES, numbers)

    def window(self, number: int) -> Tensor:
        """A texture without its margin, (WINDOW_SIZE^2, L)."""
        self.require_textures([number])
        inner = slice(MARGIN, MARGIN + WINDOW_SIZE)
        texture = self.textures[number].unflatten(0, (TEXTURE_SIZE, TEXTURE_SIZE))
        return texture[inner, inner].flatten(0, 1)

    def background_crops(self, backdrops: Sequence[Backdrop], size: int) -> Tensor:
        """What each sample sees of its background, (B, 3, size, size), linear RGB."""
        self._require(BACKGROUNDS, [backdrop.number for backdrop in backdrops])
        room = self._backgrounds.shape[-1] - size
        crops = torch.zeros(len(backdrops), 3, size, size)
        for backdrop, target in zip(backdrops, crops, strict=True):
            left, top = (int(share * (room + 1)) for share in backdrop.shift)
            rows, columns = slice(top, top + size), slice(left, left + size)
            crop = self._backgrounds[backdrop.number, :, rows, columns]
            target.copy_(crop.flip(-1) if backdrop.mirrored else crop).mul_(backdrop.gain)
        return crops

    def _require(self, kind: int, numbers: Sequence[int]) -> None:
        """Make what is not there yet."""
        make = self._make_texture if kind == TEXTURES else self._make_background
        for number in sorted(set(numbers)):
            if (kind, number) not in self._made:
                entropy = np.random.SeedSequence([self._seed, self.block, kind, number])
                make(number, np.random.Generator(np.random.PCG64(entropy)))
                self._made.add((kind, number))
