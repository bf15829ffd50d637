"""A compiled loop that samples crops from pictures in memory."""

import numpy as np

from prnet.geometry.compiled import cached


@cached(fastmath={"contract", "nsz"})
def sample_bilinear(
    pictures: np.ndarray,  # (B, Hp, Wp, C), uint8 or float32
    affine: np.ndarray,  # (B, 2, 3), float64, crop px -> picture px
    crops: np.ndarray,  # (B, C, H, W), float32, 0 at first; written: in 255ths
) -> None:
    """Bilinear, zero outside the picture: a tap that lies outside counts as 0.

    Of a row the pixels with all taps inside lie between two columns; their places and weights are
    found in vector instructions before a picture is read.
    """
    _, height, width, channels = pictures.shape
    size = crops.shape[3]
    share = np.float32(1 / 255)
    places = np.zeros(size, np.uint32)
    weights = np.zeros((4, size), np.float32)
    w_00, w_01, w_10, w_11 = weights[0], weights[1], weights[2], weights[3]
    right, below = np.uint32(channels), width * channels
    for sample in range(len(pictures)):
        matrix, picture, crop = affine[sample], pictures[sample], crops[sample]
        x_c, x_r, x_0 = matrix[0, 0], matrix[0, 1], matrix[0, 2]
        y_c, y_r, y_0 = matrix[1, 0], matrix[1, 1], matrix[1, 2]
        flat = picture.reshape(-1)
        for row in range(crops.shape[2]):
            start, end = 0, size
            while start < end:
                x, y = x_c * start + x_r * row + x_0, y_c * start + y_r * row + y_0
                if 0 <= x < width - 1 and 0 <= y < height - 1:
                    break
                _sample_at_border(picture, x, y, crop, row, start)
                start += 1
            while start < end:
                x, y = x_c * (end - 1) + x_r * row + x_0, y_c * (end - 1) + y_r * row + y_0
                if 0 <= x < width - 1 and 0 <= y < height - 1:
                    break
                end -= 1
                _sample_at_border(picture, x, y, crop, row, end)
            for column in range(start, end):
                x, y = x_c * column + x_r * row + x_0, y_c * column + y_r * row + y_0
                left, top = np.int32(x), np.int32(y)
                right_share, low_share = np.float32(x - left), np.float32(y - top)
                low_right = right_share * low_share * share
                high_right = right_share * share - low_right
                low_left = low_share * share - low_right
                places[column] = (top * width + left) * channels
                w_00[column] = share - high_right - low_left - low_right
                w_01[column], w_10[column], w_11[column] = high_right, low_left, low_right
            for c in range(channels):
                upper, lower, line = flat[c:], flat[below + c :], crop[c, row]
                for column in range(start, end):
                    i = places[column]
                    line[column] = (
                        w_00[column] * np.float32(upper[i])
                        + w_01[column] * np.float32(upper[i + right])
                    ) + (
                        w_10[column] * np.float32(lower[i])
                        + w_11[column] * np.float32(lower[i + right])
                    )


@cached(fastmath={"contract", "nsz"})
def _sample_at_border(
    picture: np.ndarray,  # (Hp, Wp, C)
    x: float,
    y: float,
    crop: np.ndarray,  # (C, H, W), written
    row: int,
    column: int,
) -> None:
    height, width, channels = picture.shape
    if not (-1 < x < width and -1 < y < height):
        return
    share, none = np.float32(1 / 255), np.float32(0)
    # Towards 0 alone would take -0.5 for 0.
    left, top = int(x + 1) - 1, int(y + 1) - 1
    right_share, low_share = np.float32(x - left), np.float32(y - top)
    w_11 = right_share * low_share * share
    w_01, w_10 = right_share * share - w_11, low_share * share - w_11
    w_00 = share - w_01 - w_10 - w_11
    inside_l, inside_r = left >= 0, left + 1 < width
    inside_t, inside_b = top >= 0, top + 1 < height
    w_00 = w_00 if inside_l and inside_t else none
    w_01 = w_01 if inside_r and inside_t else none
    w_10 = w_10 if inside_l and inside_b else none
    w_11 = w_11 if inside_r and inside_b else none
    x_l, x_h = max(left, 0), min(left + 1, width - 1)
    y_l, y_h = max(top, 0), min(top + 1, height - 1)
    for c in range(channels):
        crop[c, row, column] = (
            w_00 * np.float32(picture[y_l, x_l, c]) + w_01 * np.float32(picture[y_l, x_h, c])
        ) + (w_10 * np.float32(picture[y_h, x_l, c]) + w_11 * np.float32(picture[y_h, x_h, c]))
