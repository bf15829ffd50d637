"""A camera that changes nothing."""

import numpy as np

from prnet.synthetic.camera.film import FilmParameters

IDENTITY_FILM = FilmParameters(
    exposure=0.0,
    white_balance=np.ones(3),
    saturation=1.0,
    contrast=1.0,
    gamma=1.0,
    vignette=0.0,
    blur_px=0.0,
    defocus_px=0.0,
    motion_px=0.0,
    motion_angle=0.0,
    sharpening=0.0,
    aberration_px=np.zeros(2),
    resolution=1.0,
    read_noise=0.0,
    shot_noise=0.0,
    jpeg_quality=100.0,
)
