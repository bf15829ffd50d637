"""The UV layout against slow searches, and the round trips it must survive."""

import numpy as np
import pytest
import torch

from prnet.geometry.uv import (
    EYES_NOSE_MOUTH,
    LANDMARK,
    OUTSIDE,
    REST,
    UVLayout,
    face_mask_from_jaw,
    grid_triangles,
    nearest_vertices,
    rasterize_uv,
    uv_pixels,
)
from tests.tiny import TinyFace, read_back, tiny_face


def tiny_layout(tiny: TinyFace, **options) -> UVLayout:
    triangles = options.pop("triangles", np.concatenate([tiny.triangles, tiny.mouth_triangles]))
    return UVLayout(
        tiny.uv_coords, triangles, tiny.landmark_index, tiny.regions[:3].any(0), **options
    )


# The rasterisation.


def slow_raster(
    pixels: np.ndarray, triangles: np.ndarray, side: int, *, quirk: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel by pixel, by solving for the weights; the first triangle in the list wins."""
    triangle = np.full((side, side), -1)
    barycentric = np.zeros((side, side, 3))
    for number, corners in enumerate(pixels[triangles]):
        edges = np.stack([corners[1] - corners[0], corners[2] - corners[0]], -1)
        low, high = np.ceil(corners.min(0)), np.floor(corners.max(0))
        for row in range(side):
            for column in range(side):
                here = np.array([column, row])
                if triangle[row, column] >= 0 or (here < low).any() or (here > high).any():
                    continue
                w1, w2 = np.linalg.solve(edges, here - corners[0])
                border = min(row, column) < 2 or max(row, column) > side - 3
                if (w1 >= 0 and w2 >= 0 and w1 + w2 <= 1) or (quirk and border):
                    triangle[row, column] = number
                    barycentric[row, column] = 1 - w1 - w2, w1, w2
    return triangle, barycentric


@pytest.mark.parametrize("quirk", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_raster_matches_the_slow_loop(seed: int, quirk: bool) -> None:
    """Overlapping triangles, some across the border: the first one in the list has the pixel."""
    random = np.random.default_rng(seed)
    pixels, triangles = random.uniform(-3, 18, (30, 2)), random.integers(0, 30, (40, 3))
    triangles = triangles[[len(set(corners)) == 3 for corners in triangles.tolist()]]
    found = rasterize_uv(pixels, triangles, resolution=16, border_quirk=quirk)
    triangle, barycentric = slow_raster(pixels, triangles, 16, quirk=quirk)
    np.testing.assert_array_equal(found.triangle, triangle)
    # The quirk computes in float32 and extrapolates beyond needles.
    np.testing.assert_allclose(found.barycentric, barycentric, rtol=2e-3 if quirk else 1e-9)


def test_flat_triangles_cover_nothing() -> None:
    pixels = np.array([[1.0, 1], [5, 5], [3, 3], [1, 1]])
    triangles = np.array([[0, 1, 2], [0, 0, 1], [0, 3, 1]])
    for quirk in (False, True):
        raster = rasterize_uv(pixels, triangles, resolution=8, border_quirk=quirk)
        assert (raster.triangle == -1).all()
        assert (raster.barycentric == 0).all()


def test_pixels_on_an_edge_belong_to_the_first_triangle() -> None:
    """A square of two triangles, whichever of their edges is the diagonal."""
    pixels = np.array([[0.0, 0], [8, 0], [8, 8], [0, 8]])
    upper, lower = np.array([0, 1, 2]), np.array([0, 2, 3])
    for turn in range(3):
        triangles = np.stack([np.roll(upper, turn), np.roll(lower, turn)])
        for order in ([0, 1], [1, 0]):
            found = rasterize_uv(pixels, triangles[order], resolution=10).triangle
            assert (found[:9, :9] >= 0).all()
            assert (found[9] == -1).all()
            assert (found[:, 9] == -1).all()
            assert (np.diag(found)[:9] == 0).all()


def test_jittered_grid_has_no_gap() -> None:
    """Edges through pixel centres in every direction, at coordinates that round."""
    random = np.random.default_rng(0)
    for scale in (1.0, 1 / 3, 0.7):
        corners = np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2)
        pixels = (corners / scale - 2) @ np.array([[1, 0.3], [-0.2, 1]])
        pixels += random.choice([0, 1e-13], pixels.shape)
        index = np.arange(144).reshape(12, 12)
        here, right, below = index[:-1, :-1], index[:-1, 1:], index[1:, :-1]
        triangles = np.stack([here, right, below], -1).reshape(-1, 3)
        triangles = np.concatenate([triangles, triangles + [1, 12, 0]])
        found = rasterize_uv(pixels, triangles, resolution=6).triangle
        inside = np.ones((6, 6), dtype=bool)
        rows, columns = np.mgrid[:6, :6]
        source = (np.stack([columns, rows], -1) @ np.linalg.inv([[1, 0.3], [-0.2, 1]]) + 2) * scale
        inside = ((source > 0) & (source < 11)).all(-1)
        assert (found[inside] >= 0).all()


def test_quirk_leaves_out_the_open_edge() -> None:
    """face3d's w1 + w2 < 1: pixels on the edge opposite to the first corner stay empty."""
    pixels = np.array([[4.0, 4], [10, 4], [4, 10]])
    found = rasterize_uv(pixels, np.array([[0, 1, 2]]), resolution=16, border_quirk=True).triangle
    rows, columns = np.mgrid[:16, :16]
    expected = (rows >= 4) & (columns >= 4) & (rows + columns < 14)
    np.testing.assert_array_equal(found >= 0, expected)


def test_arguments_are_left_alone() -> None:
    tiny = tiny_face()
    pixels = uv_pixels(tiny.uv_coords, 32)
    for array in (pixels, tiny.triangles, tiny.uv_coords, tiny.landmark_index, tiny.regions):
        array.setflags(write=False)
    mask = np.ones((32, 32), dtype=bool)
    cells = np.full((68, 2), 3)
    mask.setflags(write=False)
    cells.setflags(write=False)
    rasterize_uv(pixels, tiny.triangles, resolution=32, border_quirk=True)
    tiny_layout(tiny, resolution=32, face_mask=mask, landmark_cells=cells)


def test_uv_to_pixels_by_the_formula() -> None:
    found = uv_pixels(np.array([[0.0, 0.0], [1.0, 1.0], [0.25, 0.8]]), 256)
    np.testing.assert_allclose(found, [[0, 255], [255, 0], [63.75, 51]], atol=1e-12)


# The layout.


def test_every_texel_has_weights_that_find_its_own_position(face) -> None:
    """Its column and row, carried as attributes of the vertices, come back at every texel."""
    tiny = tiny_face()
    layout = tiny_layout(tiny)
    pixels = torch.from_numpy(uv_pixels(tiny.uv_coords, 256))[None]
    found = layout.position_map(pixels)[0]  # (2, H, W)
    rows, columns = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    error = (found - torch.stack([columns, rows])).abs()
    assert error.max() < 1e-4
    torch.testing.assert_close(layout.barycentric.sum(-1), torch.ones(256, 256))
    # Without triangles in the slit its texels take the nearest vertex: off by less than its width.
    open_lips = tiny_layout(tiny, triangles=tiny.triangles)
    error = (open_lips.position_map(pixels)[0] - torch.stack([columns, rows])).abs()
    slit = error.amax(0) > 1e-4
    assert 50 < slit.sum() < 1000
    assert error.max() < 0.09 * 255


def test_quirk_fills_the_rim_and_changes_nothing_inside() -> None:
    tiny = tiny_face()
    triangles = np.concatenate([tiny.triangles, tiny.mouth_triangles])
    pixels = uv_pixels(tiny.uv_coords, 64)
    plain, quirk = (
        rasterize_uv(pixels, triangles, resolution=64, border_quirk=flag) for flag in (False, True)
    )
    assert (plain.triangle >= 0).all()
    assert (quirk.triangle[[0, 1, -2, -1]] >= 0).all()
    assert (quirk.triangle[:, [0, 1, -2, -1]] >= 0).all()
    inner = (slice(2, -2), slice(2, -2))
    same = plain.triangle[inner] == quirk.triangle[inner]
    assert same.mean() > 0.995  # float32 may hand a pixel on an edge to the neighbour
    np.testing.assert_allclose(
        plain.barycentric[inner][same], quirk.barycentric[inner][same], atol=2e-4
    )
    assert plain.barycentric.min() > -1e-8
    assert quirk.barycentric.min() < -0.1  # extrapolated


def test_position_map_is_a_weighted_gather(face) -> None:
    random = torch.Generator().manual_seed(0)
    attributes = torch.randn(2, 98, 5, generator=random)
    found = face.uv.position_map(attributes)
    assert found.shape == (2, 5, 256, 256)
    for row, column in ((0, 0), (128, 77), (254, 254), (173, 128)):
        weights, index = face.uv.barycentric[row, column], face.uv.vertex_index[row, column]
        expected = (weights[:, None] * attributes[:, index]).sum(1)
        torch.testing.assert_close(found[:, :, row, column], expected)


def test_smooth_surface_survives_the_round_trip() -> None:
    """Vertices -> map -> vertices, on a mesh whose triangles are a few texels wide."""
    side = np.linspace(0, 1, 41)
    v, u = np.meshgrid(side[::-1], side, indexing="ij")
    uv_coords = np.stack([u, v], -1).reshape(-1, 2)
    index = np.arange(41 * 41).reshape(41, 41)
    here, right, below, across = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.concatenate(
        [np.stack([here, right, below], -1), np.stack([right, across, below], -1)]
    ).reshape(-1, 3)
    landmarks = np.argmin(
        np.linalg.norm(uv_coords[None] - tiny_face().uv_coords[:68, None], axis=-1), axis=1
    )
    layout = UVLayout(uv_coords, triangles, landmarks, np.zeros(1681, dtype=bool))
    x, y = torch.from_numpy(255 * uv_coords).unbind(-1)
    linear = torch.stack([x, 2 * y - x, 3 - 0.5 * y], -1)[None]
    curved = torch.stack([x, y, 100 * torch.sin(x / 60) * torch.cos(y / 60)], -1)[None]
    for vertices, tolerance in ((linear, 1e-4), (curved, 0.3)):
        back = read_back(layout, layout.position_map(vertices))
        assert (back - vertices).abs().max() < tolerance


def test_landmarks_are_read_at_their_rounded_cells() -> None:
    tiny = tiny_face()
    layout = tiny_layout(tiny)
    columns_rows = torch.stack(
        torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="xy")
    )
    found = layout.landmarks(columns_rows[None])[0].numpy()  # (68, 2), column and row
    np.testing.assert_array_equal(found, np.rint(uv_pixels(tiny.uv_coords, 256)[:68]))
    # 0.5 * 255 = 127.5 rounds to the even 128, as in PRNet's table.
    assert found[8, 0] == 128
    given = tiny_layout(tiny, landmark_cells=np.stack([np.arange(68), np.arange(68) + 100], -1))
    found = given.landmarks(columns_rows[None])[0]
    assert torch.equal(found, torch.stack([torch.arange(68.0) + 100, torch.arange(68.0)], -1))


def test_face_points_are_in_row_major_order(face) -> None:
    flat = torch.arange(65536.0).view(1, 1, 256, 256)
    points = face.uv.face_points(flat)[0, :, 0]
    expected = np.flatnonzero(face.uv.face_mask.numpy())
    np.testing.assert_array_equal(points.numpy(), expected)
    assert points.shape == face.uv.face_index.shape


def test_nearest_vertex_by_search() -> None:
    random = np.random.default_rng(0)
    points, vertices = random.uniform(0, 9, (20, 2)), random.uniform(0, 9, (30, 2))
    distance = np.linalg.norm(points[:, None] - vertices, axis=-1)
    np.testing.assert_array_equal(nearest_vertices(points, vertices), distance.argmin(1))
    assert nearest_vertices(points[:0], vertices).shape == (0,)


# Triangles of the grid.


def slow_grid_triangles(mask: np.ndarray) -> list[tuple[int, int, int]]:
    rows, columns = mask.shape
    number = {pixel: i for i, pixel in enumerate(zip(*np.nonzero(mask), strict=True))}
    triangles = []
    for r in range(rows):
        for c in range(columns):
            if (r, c) not in number:
                continue
            here, right = number[r, c], number.get((r, c + 1))
            below, below_left = number.get((r + 1, c)), number.get((r + 1, c - 1))
            if below is not None and below_left is not None:
                triangles.append((here, below, below_left))
            if right is not None and below is not None:
                triangles.append((here, right, below))
    return triangles


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_grid_triangles_match_the_slow_loop(share: float) -> None:
    mask = np.random.default_rng(0).uniform(size=(13, 17)) < share
    found = grid_triangles(mask)
    expected = np.array(slow_grid_triangles(mask)).reshape(-1, 3)
    np.testing.assert_array_equal(found, expected)


def test_grid_triangles_cover_the_square_once_and_point_outward() -> None:
    """In the y-down frame, with the map the identity, every normal points to the camera."""
    triangles = grid_triangles(np.ones((9, 11), dtype=bool))
    rows, columns = np.divmod(np.arange(99), 11)
    corners = np.stack([columns, rows], -1)[triangles]
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge_1[:, 0] * edge_2[:, 1] - edge_1[:, 1] * edge_2[:, 0]
    np.testing.assert_array_equal(area, 1)
    assert len(triangles) == 2 * 8 * 10
    assert len(np.unique(np.sort(triangles, axis=1), axis=0)) == len(triangles)


# Masks.


def test_face_mask_follows_the_jaw(face) -> None:
    pixels = uv_pixels(tiny_face().uv_coords, 256)[:68]
    mask = face_mask_from_jaw(pixels, resolution=256)
    inner = np.rint(pixels[17:]).astype(int)
    assert mask[inner[:, 1], inner[:, 0]].all()
    jaw = np.rint(pixels[:17]).astype(int)
    assert mask[jaw[:, 1], jaw[:, 0]].all()
    # No neck: from the nose tip the line lies 8 % beyond the chin.
    tip, chin = pixels[30], pixels[8]
    last = np.flatnonzero(mask[:, round(chin[0])]).max()
    assert abs(last - (tip[1] + 1.08 * (chin[1] - tip[1]))) <= 1
    # A margin of 1.8 % at the top and the sides; each column is one piece; the tiny face mirrors.
    assert np.flatnonzero(mask.any(1)).min() == 5
    assert np.flatnonzero(mask.any(0)).tolist() == list(range(5, 251))
    assert (np.abs(np.diff(mask.astype(int), axis=0)).sum(0)[5:251] == 2).all()
    assert (mask != mask[:, ::-1]).mean() < 0.005
    np.testing.assert_array_equal(face.uv.face_mask.numpy(), mask)


def test_weight_mask_has_the_ratio_of_each_region(face) -> None:
    region = face.uv.region
    for ratio in ((16.0, 4.0, 3.0, 0.0), (1.0, 1.0, 1.0, 1.0), (16.0, 12.0, 3.0, 0.5)):
        mask = face.uv.weight_mask(ratio)
        assert mask.dtype == torch.float32
        for name, weight in zip((LANDMARK, EYES_NOSE_MOUTH, REST, OUTSIDE), ratio, strict=True):
            assert (mask[region == name] == weight).all()
    assert (region == LANDMARK).sum() == 68
    row, column = face.uv.landmark_cells.unbind(-1)
    assert (region[row, column] == LANDMARK).all()
    assert torch.equal(region == OUTSIDE, ~face.uv.face_mask)


def test_central_region_is_where_most_of_the_weight_is_on_central_vertices() -> None:
    tiny = tiny_face()
    layout = tiny_layout(tiny)
    central = torch.from_numpy(tiny.regions[:3].any(0)).float()[None, :, None]
    share = layout.position_map(central)[0, 0]
    settled = (share - 0.5).abs() > 1e-5
    plain = settled & (layout.region != LANDMARK) & layout.face_mask
    assert torch.equal(layout.region[plain] == EYES_NOSE_MOUTH, share[plain] > 0.5)
    assert (layout.region == EYES_NOSE_MOUTH).sum() > 5000


def test_landmark_outside_of_the_given_mask_has_no_weight() -> None:
    mask = np.zeros((256, 256), dtype=bool)
    mask[:120] = True
    layout = tiny_layout(tiny_face(), face_mask=mask)
    assert (layout.region[120:] == OUTSIDE).all()
    np.testing.assert_array_equal(layout.face_index.numpy(), np.arange(120 * 256))


def test_layout_has_no_state_for_a_checkpoint(face) -> None:
    assert face.uv.state_dict() == {}
    assert not list(face.uv.parameters())


def test_mask_of_another_size_raises() -> None:
    with pytest.raises(ValueError, match=r"face mask: got \(64, 64\), expected \(256, 256\)"):
        tiny_layout(tiny_face(), face_mask=np.ones((64, 64), dtype=bool))
