"""A compiled loop that samples crops from pictures in memory."""

import numpy as np

from prnet.geometry.compiled import cached


@cached(fastmath={"contract", "nsz"})
def sample_bilinear(
    pictures: np.ndarray,  # (B, C, Hp, Wp), uint8 or float32
    affine: np.ndarray,  # (B, 2, 3), float64, crop px -> picture px
    crops: np.ndarray,  # (B, C, H, W), float32, 0 at first; written: in 255ths
) -> None:
    """Bilinear, zero outside the picture: a tap that lies outside counts as 0."""
    _, channels, height, width = pictures.shape
    share = np.float32(1 / 255)
    for sample in range(len(pictures)):
        matrix = affine[sample]
        x_c, x_r, x_0 = matrix[0, 0], matrix[0, 1], matrix[0, 2]
        y_c, y_r, y_0 = matrix[1, 0], matrix[1, 1], matrix[1, 2]
        for row in range(crops.shape[2]):
            for column in range(crops.shape[3]):
                x = x_c * column + x_r * row + x_0
                y = y_c * column + y_r * row + y_0
                if not (-1 < x < width and -1 < y < height):
                    continue
                # Towards 0 alone would take -0.5 for 0.
                left, top = int(x + 1) - 1, int(y + 1) - 1
                right_share, low_share = np.float32(x - left), np.float32(y - top)
                w_11 = right_share * low_share * share
                w_01, w_10 = right_share * share - w_11, low_share * share - w_11
                w_00 = share - w_01 - w_10 - w_11
                if left < 0 or left + 1 >= width or top < 0 or top + 1 >= height:
                    inside_l, inside_r = left >= 0, left + 1 < width
                    inside_t, inside_b = top >= 0, top + 1 < height
                    w_00 = w_00 if inside_l and inside_t else np.float32(0)
                    w_01 = w_01 if inside_r and inside_t else np.float32(0)
                    w_10 = w_10 if inside_l and inside_b else np.float32(0)
                    w_11 = w_11 if inside_r and inside_b else np.float32(0)
                x_l, x_h = np.uint64(max(left, 0)), np.uint64(min(left + 1, width - 1))
                y_l, y_h = np.uint64(max(top, 0)), np.uint64(min(top + 1, height - 1))
                for c in range(channels):
                    channel = pictures[sample, c]
                    crops[sample, c, row, column] = (
                        w_00 * np.float32(channel[y_l, x_l]) + w_01 * np.float32(channel[y_l, x_h])
                    ) + (
                        w_10 * np.float32(channel[y_h, x_l]) + w_11 * np.float32(channel[y_h, x_h])
                    )
