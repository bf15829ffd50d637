"""Position maps as files, for programs that want them ready made."""

import numpy as np

MAP_DTYPES = ("float32", "float16", "uint16")
FIXED_POINT_STEPS = 128  # per px
FIXED_POINT_RANGE = (-128.0, 384.0)


def encode_map(position_map: np.ndarray, dtype: str) -> np.ndarray:
    """A position map (H, W, 3) in crop px for storage.

    `uint16` counts 1/128 px, modulo 512 px: values from 0 to 384 decode by a division, stored
    values of 384 px and more stand for negative coordinates (faces that leave the crop), see
    `decode_map`.

    Raises:
        ValueError: a coordinate outside [-128, 384) px for uint16.
    """
    if dtype != "uint16":
        return position_map.astype(dtype)
    low, high = FIXED_POINT_RANGE
    steps = np.rint(position_map.astype(np.float64) * FIXED_POINT_STEPS).astype(np.int64)
    if steps.min() < low * FIXED_POINT_STEPS or steps.max() >= high * FIXED_POINT_STEPS:
        raise ValueError(
            f"coordinates from {position_map.min():.1f} to {position_map.max():.1f} px do not fit "
            f"the uint16 maps' range {low:g} to {high:g} px; use map_dtype=float16 or float32"
        )
    return (steps % 2**16).astype(np.uint16)


def decode_map(stored: np.ndarray) -> np.ndarray:
    """A stored map as float32 crop px, whatever its dtype."""
    if stored.dtype != np.uint16:
        return stored.astype(np.float32)
    pixels = stored.astype(np.float32) / FIXED_POINT_STEPS
    return np.where(pixels >= FIXED_POINT_RANGE[1], pixels - 2**16 / FIXED_POINT_STEPS, pixels)
