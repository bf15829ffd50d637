"""From light to the picture a network sees: lens, sensor, tone curve, small pictures, JPEG.

Letters: B batch, S side of the square picture.
"""

from torch import Tensor

from prnet.synthetic.camera.exposure import expose
from prnet.synthetic.camera.film import FilmParameters
from prnet.synthetic.camera.lens import SIZE_STEP, through_lens

SMALLEST_SIDE = 16


def develop(
    image: Tensor,  # (B, 3, S, S), linear RGB, above 1 is overexposed; written
    parameters: FilmParameters,  # tensors (B,), (B, 2) or (B, 3)
    seeds: Tensor,  # (B,), int64, of the noise
) -> None:
    """Make the picture what a file would hold, sRGB in [0, 1].

    Lens, light, sensor, tone curve, JPEG, in this order; JPEG and noise act on the picture as
    taken (`resolution`), which is then enlarged bilinearly.

    Raises:
        ValueError: a side that is no multiple of `SIZE_STEP`.
    """
    size = image.shape[-1]
    if image.shape[1:] != (3, size, size) or size % SIZE_STEP:
        raise ValueError(
            f"picture: got {tuple(image.shape)}, expected (B, 3, S, S) with S a multiple of "
            f"{SIZE_STEP}"
        )
    parameters = FilmParameters(*(field.float() for field in parameters))
    side = (parameters.resolution * size).round().clamp(SMALLEST_SIDE, size)
    through_lens(image, parameters, size / side)
    expose(image, parameters, side, seeds)
