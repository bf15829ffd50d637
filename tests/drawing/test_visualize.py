"""What is drawn lies where the coordinates say, and nothing else changes."""

import numpy as np
import pytest
import torch

from prnet.drawing.pictures import (
    AXIS_COLOURS,
    LANDMARK_LINES,
    MOST_COVERS,
    POINT_COLOUR,
    draw_axes,
    draw_heading,
    draw_landmarks,
    draw_map_error,
    draw_mesh,
    draw_position_map,
    tile,
    to_picture,
)
from tests.tiny import landmark_template, sphere


def canvas(height: int = 200, width: int = 180, value: int = 90) -> np.ndarray:
    picture = np.full((height, width, 3), value, np.uint8)
    picture.setflags(write=False)
    return picture


def spread_landmarks() -> np.ndarray:
    return landmark_template() * [150, -150] + [15, 170]


def test_picture_is_rounded_and_clipped() -> None:
    image = torch.tensor([0.0, 1.0, 0.5, -1.0, 7.0, 100 / 255])[None, None].expand(3, 2, 6)
    assert to_picture(image)[0, :, 0].tolist() == [0, 255, 128, 0, 255, 100]
    assert to_picture(image).shape == (2, 6, 3)


def test_landmarks_are_marked_at_their_pixels() -> None:
    landmarks = spread_landmarks()
    drawn = draw_landmarks(canvas(), landmarks)
    for x, y in np.rint(landmarks).astype(int):
        assert abs(drawn[y, x].astype(int) - POINT_COLOUR).max() < 100


def test_drawing_follows_fractions_of_a_pixel() -> None:
    landmarks = spread_landmarks()
    start, half, whole = (
        draw_landmarks(canvas(value=0), landmarks + [shift, 0]).sum(-1).astype(float)
        for shift in (0.0, 0.5, 1.0)
    )
    np.testing.assert_array_equal(whole[:, 1:], start[:, :-1])
    columns = np.arange(180)
    moved = (half * columns).sum() / half.sum() - (start * columns).sum() / start.sum()
    assert abs(moved - 0.5) < 0.1


def test_polylines_break_between_the_parts_of_the_face() -> None:
    """Ends at 16, 21, 26, 30, 35, 41, 47 and 67, and at the corner of the inner lips."""
    assert [end - 1 for _, end, _ in LANDMARK_LINES] == [16, 21, 26, 30, 35, 41, 47, 59, 67]
    assert [first for first, _, _ in LANDMARK_LINES[1:]] == [
        end for _, end, _ in LANDMARK_LINES[:-1]
    ]
    landmarks = spread_landmarks()
    drawn = draw_landmarks(canvas(), landmarks)

    def joined(first: int, second: int) -> bool:
        x, y = np.rint((landmarks[first] + landmarks[second]) / 2).astype(int)
        return drawn[y - 1 : y + 2, x - 1 : x + 2].min(-1).max() > 170

    assert joined(3, 4)
    assert joined(8, 9)
    for end in (16, 26, 30, 35):
        assert not joined(end, end + 1), end


def test_landmarks_outside_of_the_picture_are_allowed() -> None:
    far = spread_landmarks()
    far[:17] += 1e9
    drawn = draw_landmarks(canvas(), far)
    assert (drawn != canvas()).any()
    assert (draw_landmarks(canvas(), np.full((68, 3), -1e7)) == canvas()).all()


def test_mesh_covers_the_sphere_and_is_brightest_where_it_faces_the_camera() -> None:
    vertices, triangles = sphere(60.0, (90.0, 100.0, 0.0))
    drawn = draw_mesh(canvas(), torch.from_numpy(vertices), torch.from_numpy(triangles), opacity=1)
    rows, columns = np.mgrid[:200, :180]
    distance = np.hypot(rows - 100, columns - 90)
    assert (drawn[distance > 61] == 90).all()
    assert (drawn[distance < 59] != 90).any(-1).all()
    blue = drawn[..., 2].astype(float)
    assert blue[100, 90] > 250
    for low, high in ((0, 20), (20, 40), (40, 58)):
        ring = (distance >= low) & (distance < high)
        facing = np.sqrt(1 - (distance[ring] / 60) ** 2)
        np.testing.assert_allclose(blue[ring], 255 * (0.25 + 0.75 * facing), atol=4)


def test_back_faces_show_the_photo() -> None:
    vertices, triangles = sphere(60.0, (90.0, 100.0, 0.0))
    inside_out = torch.from_numpy(triangles).flip(1)
    far_half = inside_out[vertices[triangles][..., 2].max(1) < 0]
    for mesh in (inside_out[vertices[triangles][..., 2].min(1) > 0], far_half.flip(1)):
        assert (draw_mesh(canvas(), vertices, mesh) == canvas()).all()
    assert (draw_mesh(canvas(), vertices, far_half) != canvas()).any()


def test_mesh_that_is_no_surface_is_left_out() -> None:
    """What an untrained network predicts covers every pixel hundreds of times; a face many times
    the picture's size does not."""
    vertices, triangles = sphere(60.0, (90.0, 100.0, 0.0))
    triangles = torch.from_numpy(triangles)
    scattered = np.random.default_rng(0).uniform(-1e4, 1e4, vertices.shape)
    assert len(triangles) > 4 * MOST_COVERS
    assert (draw_mesh(canvas(), scattered, triangles) == canvas()).all()
    large, _ = sphere(6000.0, (90.0, 100.0, 0.0))
    assert (draw_mesh(canvas(), large, triangles) != canvas()).any(-1).all()


def test_opacity_blends_with_the_photo() -> None:
    vertices, triangles = sphere(60.0, (90.0, 100.0, 0.0))
    triangles = torch.from_numpy(triangles)
    opaque, half, clear = (
        draw_mesh(canvas(), vertices, triangles, opacity=opacity).astype(int)
        for opacity in (1.0, 0.5, 0.0)
    )
    assert (clear == canvas()).all()
    assert np.abs(2 * half - opaque - clear).max() <= 2


def test_position_map_shows_its_coordinates() -> None:
    position_map = torch.zeros(3, 4, 5)
    position_map[:, 1, 2] = torch.tensor([10.4, 99.6, 400.0])
    position_map[0, 3, 4] = -7
    drawn = draw_position_map(position_map)
    assert drawn.shape == (4, 5, 3)
    assert drawn[1, 2].tolist() == [10, 100, 255]
    assert drawn.sum() == 365


def test_map_error_grows_with_the_distance_inside_the_mask() -> None:
    """A step of colour a doubling, so neither a fresh network is all light nor a good one black."""
    truth = torch.zeros(3, 2, 6)
    predicted = truth.clone()
    predicted[0] = torch.tensor([0.0, 0.4, 2.0, 16.0, 90.0, 999.0])
    mask = torch.tensor([[True] * 6, [False] * 6])
    drawn = draw_map_error(predicted, truth, mask=mask)
    brightness = drawn.sum(-1, dtype=int)
    assert brightness[0, 0] == brightness[0, 1] < 30
    assert (np.diff(brightness[0, 1:]) > 50).all()
    assert brightness[0, 4] < 0.8 * brightness[0, 5]
    assert (brightness[1] < 30).all()
    red, green, blue = drawn[0, 4].tolist()
    assert red > green > blue  # RGB, not BGR


def test_map_error_has_a_legend_over_its_lowest_rows() -> None:
    truth = torch.zeros(3, 256, 256)
    mask = torch.ones(256, 256, dtype=torch.bool)
    plain = draw_map_error(truth + 4, truth, mask=mask)
    drawn = draw_map_error(truth + 4, truth, mask=mask, legend=True)
    assert drawn.shape == plain.shape
    assert (drawn[:200] == plain[:200]).all()
    swatches = drawn[256 - 48 + 8, 16::32].sum(-1, dtype=int)  # of 1, 2, 4 ... 128 px
    assert len(swatches) == 8
    assert (np.diff(swatches) > 0).all()


def test_heading_fits_its_text() -> None:
    """Short and long texts, and letters that cannot be drawn."""
    for text in ("image00001: 3.21", "abc " * 80, "Gesichter von Müller"):
        strip = draw_heading(text, width=300, height=24)
        assert strip.shape == (24, 300, 3)
        bright = np.argwhere(strip.sum(-1, dtype=int) > 300)
        assert len(bright) > 20
        assert bright[:, 1].max() < 299
        assert 2 <= bright[:, 0].min() < bright[:, 0].max() <= 21


def test_contact_sheet_has_every_picture_in_its_cell() -> None:
    pictures = [canvas(10 + i, 8 + i, 40 * i + 40) for i in range(5)]
    sheet = tile(pictures, columns=3)
    assert sheet.shape == (2 * 14, 3 * 12, 3)
    for i, picture in enumerate(pictures):
        top, left = i // 3 * 14, i % 3 * 12
        cell = sheet[top : top + 14, left : left + 12]
        assert (cell[: 10 + i, : 8 + i] == picture).all()
        assert (cell[10 + i :] == 0).all()
        assert (cell[:, 8 + i :] == 0).all()
    assert tile(pictures[:1], columns=9).shape == (10, 8, 3)


def test_bad_arguments_raise() -> None:
    landmarks = spread_landmarks()
    broken = landmarks.copy()
    broken[5, 1] = np.nan
    for arguments, message in (
        ((canvas(), landmarks[:21]), r"landmarks: got shape \(21, 2\), expected \(68, 2 or more\)"),
        ((canvas(), broken), "landmarks: hold coordinates that are not finite"),
        ((canvas()[..., 0], landmarks), r"picture: got uint8 \(200, 180\), expected uint8 \(H, W"),
        ((canvas() / 255, landmarks), "picture: got float64"),
    ):
        with pytest.raises(ValueError, match=message):
            draw_landmarks(*arguments)
    with pytest.raises(ValueError, match="got 0 pictures for 3 columns"):
        tile([], columns=3)
    with pytest.raises(ValueError, match="1 pictures for 0 columns"):
        tile([canvas()], columns=0)
    with pytest.raises(ValueError, match="not finite"):
        draw_mesh(canvas(), np.full((3, 3), np.nan), torch.tensor([[0, 1, 2]]))


def test_axes_end_where_they_point_in_their_colours():
    picture = np.zeros((100, 120, 3), np.uint8)
    axes = np.array([[30.0, 5, 0], [0, -40, 1], [-35, 20, -1]])
    drawn = draw_axes(picture, np.array([60.0, 50]), axes, stroke=3)
    assert not picture.any()
    for axis, colour in zip(axes, AXIS_COLOURS, strict=True):
        x, y = np.rint([60, 50] + 0.6 * axis[:2]).astype(int)
        np.testing.assert_allclose(drawn[y, x], colour, atol=3)
    assert not drawn[70:, 80:].any()
    # Of two on one line the one toward the camera covers the other, wherever it stands in the list.
    for depths in ((1, -1), (-1, 1)):
        pair = np.array([[30.0, 0, depths[0]], [30, 0, depths[1]], [0, 30, 0]])
        drawn = draw_axes(picture, np.array([60.0, 50]), pair, stroke=3)
        np.testing.assert_allclose(drawn[50, 75], AXIS_COLOURS[depths.index(1)], atol=3)
