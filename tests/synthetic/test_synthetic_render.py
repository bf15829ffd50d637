"""The renderer of synthetic faces against brute force, the projection and the position map."""

import numpy as np
import pytest
import torch

from prnet.geometry.camera import image_from_model, transform_points
from prnet.geometry.mesh import vertex_normals
from prnet.geometry.position_map import PositionMapDecoder
from prnet.geometry.rasterize import rasterize
from prnet.synthetic.camera.lighting import Light, polynomial_terms, soft_light
from prnet.synthetic.camera.pose import CameraPose
from prnet.synthetic.parameters import SampleParameters, stack
from prnet.synthetic.render.normals import quad_normals, quads_of
from prnet.synthetic.render.palette import HIGHLIGHTS
from prnet.synthetic.render.renderer import Renderer, Rendering
from prnet.synthetic.render.scene import EYE, LOOKS, MOUTH_PARTS, Scene, transform
from prnet.synthetic.render.shadow import shadow_map
from prnet.synthetic.srgb import srgb_encode
from prnet.synthetic.world import SyntheticFaces
from prnet.synthetic.worn.accessories import OPAQUE
from prnet.synthetic.worn.patterns import KIND_NAMES
from prnet.synthetic.worn.solids import select
from tests.films import IDENTITY_FILM
from tests.painter import paint
from tests.worlds import shipped_world

SIZE = 128
LIGHT = Light(
    irradiance=np.concatenate([np.full((1, 3), 0.8), np.zeros((8, 3))]),
    direction=np.array([0.0, 0.0, 1.0]),
    color=np.zeros(3),
    shadow=0.0,
    highlight=np.array([0.0, 0.0, 1.0]),
    highlight_color=np.zeros(3),
)


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    world = shipped_world(border_share=0, occluder_share=0)
    return SyntheticFaces(world, size=SIZE, textures_per_block=2, backgrounds_per_block=2)


def undressed(parameters: tuple) -> tuple:
    """Nothing worn: every number of the accessories but the paint is 0."""

    def zeroed(fields: tuple) -> tuple:
        return type(fields)(*(zeroed(f) if isinstance(f, tuple) else 0 * f for f in fields))

    return zeroed(parameters)._replace(paint=parameters.paint)


def bare(faces: SyntheticFaces, index: int = 0, *, yaw_deg: float = 0, **exp: float):
    """A head of neutral or given expression in front of the camera, without accessories."""
    item = faces.parameters(index)
    names = faces.head.exp_names
    return item._replace(
        exp_params=np.array([exp.get(name, 0.0) for name in names]),
        pose=CameraPose(np.radians(yaw_deg), 0.0, 0.0, 0.0),
        framing=item.framing._replace(scale=1.5, shift=np.zeros(2)),
        accessories=undressed(item.accessories),
        film=IDENTITY_FILM,
        light=LIGHT,
    )


def render(faces: SyntheticFaces, items: list[SampleParameters]) -> Rendering:
    return faces.renderer(items, faces.bank(0))


def head_points(faces: SyntheticFaces, rendering: Rendering) -> torch.Tensor:
    """The head's vertices in crop px, (B, N, 3), by the public model and camera alone."""
    vertices = faces.head.morphable_model(rendering.shape_params, rendering.exp_params)
    return transform_points(rendering.crop_from_model, vertices)


def seen_looks(faces: SyntheticFaces, items: list[SampleParameters]) -> torch.Tensor:
    """What the opaque layer shows of the head at each pixel, into `LOOKS`, (B, S, S); -1 where
    nothing."""
    rendering = render(faces, items)
    layer = faces.renderer.scene.layers[OPAQUE]
    triangles = torch.from_numpy(layer.triangles.astype(np.int64))
    head = (triangles < faces.renderer.scene.num_head).all(1).nonzero().squeeze(1)
    raster = rasterize(
        head_points(faces, rendering),
        triangles[head],
        height=SIZE,
        width=SIZE,
        cull_back_faces=True,
    )
    looks = torch.from_numpy(layer.look)[head[raster.triangle.clamp(min=0)]].long()
    return looks.where(raster.triangle >= 0, -1)


def test_quads_join_triangles_that_share_an_edge() -> None:
    triangles = torch.tensor([[5, 6, 7], [7, 8, 5], [0, 1, 2], [3, 4, 9], [1, 2, 3]])
    quads = quads_of(triangles).tolist()
    assert quads[0] in ([5, 6, 7, 8], [7, 8, 5, 6])
    assert quads[1:] == [[0, 1, 2, 2], [3, 4, 9, 9], [1, 2, 3, 3]]


def normals_by_formula(scene: Scene, points: torch.Tensor) -> torch.Tensor:  # (V, 3)
    """Means over each vertex's quads, weighted by area; sheets count with one winding."""
    fronts = [
        layer.triangles[: len(layer.triangles) - layer.two_sided.sum() // 2]
        for layer in scene.layers.values()
    ]
    quads = torch.cat([quads_of(torch.from_numpy(front.astype(np.int64))) for front in fronts])
    a, b, c, d = quads.t()
    doubled = torch.linalg.cross(points[c] - points[a], points[d] - points[b])
    total = torch.zeros_like(points)
    for corner in (a, b, c):
        total.index_add_(0, corner, doubled)
    total.index_add_(0, d[d != c], doubled[d != c])
    return torch.nn.functional.normalize(total, dim=1)


def test_normals_are_those_of_the_surface(faces: SyntheticFaces) -> None:
    scene = faces.renderer.scene
    batch = stack([faces.parameters(k) for k in (0, 1)])
    vertices = scene.vertices(batch.shape_params, batch.exp_params, batch.accessories)
    matrix = torch.diag(torch.tensor([1e-3, -1e-3, 1e-3, 1.0])).expand(2, 4, 4)
    points = transform(matrix, vertices)
    normals = torch.stack([quad_normals(each, scene.diagonals) for each in points])
    head, worn = faces.head, points[..., 2] > -1000
    by_formula = torch.stack([normals_by_formula(scene, each) for each in points.double()])
    close = (normals - by_formula).abs().amax(-1) < 1e-4
    # Where something has no area the direction is left to rounding.
    assert close[:, : scene.num_head].float().mean() > 0.9999
    assert close[worn].float().mean() > 0.98
    expected = vertex_normals(points[:, : scene.num_head], head.triangles)
    # Within the surface; where parts that are not drawn touch it the two differ.
    agreement = (normals[:, : head.num_surface] * expected[:, : head.num_surface]).sum(-1)
    assert agreement.median() > 0.9999
    assert (agreement < 0.9).float().mean() < 0.01
    length = normals.norm(dim=-1)
    assert (((length - 1).abs() < 1e-5) | (length == 0)).all()
    # Sheets, too, have a normal, although they are listed with both windings.
    assert (length[:, scene.num_head :][worn[:, scene.num_head :]] > 0).float().mean() > 0.9


def test_transform_is_the_camera_s(faces: SyntheticFaces) -> None:
    random = torch.Generator().manual_seed(0)
    matrix, points = torch.rand(2, 4, 4, generator=random), torch.rand(2, 7, 3, generator=random)
    torch.testing.assert_close(transform(matrix, points), transform_points(matrix, points))
    # To the bit one product and one sum after the other, which frozen pictures depend on.
    x, y, z = points.unbind(-1)
    rows = [
        m[:, :1] * x + m[:, 1:2] * y + m[:, 2:3] * z + m[:, 3:] for m in matrix[:, :3].unbind(1)
    ]
    assert torch.equal(transform(matrix, points), torch.stack(rows, -1))


def test_attention_matches_a_search_through_all_triangles(faces: SyntheticFaces) -> None:
    items = [bare(faces, 1, yaw_deg=35, jawOpen=0.7), bare(faces, 2, yaw_deg=-70)]
    rendering = render(faces, items)
    points = head_points(faces, rendering).double().numpy()
    head, face_mask = faces.head, faces.face.uv.face_mask.numpy()
    names = np.array(head.region_names)[head.triangle_region.numpy()]
    drawn = ~np.char.startswith(names, "lashes") & (names != "mouth_slit")
    triangles, names = head.triangles.numpy()[drawn], names[drawn]
    uv_coords = head.uv_coords.numpy()
    random = np.random.default_rng(0)
    compared = faces_seen = 0
    for item in range(2):
        corners = points[item][triangles]  # (T, 3, 3)
        for x, y in random.integers(8, SIZE - 8, (120, 2)):
            dx, dy = np.moveaxis(corners[..., :2] - [x, y], -1, 0)  # (T, 3)
            edges = np.roll(dx, -1, 1) * np.roll(dy, -2, 1) - np.roll(dy, -1, 1) * np.roll(
                dx, -2, 1
            )
            area = edges.sum(1)
            weights = edges / np.where(area == 0, 1, area)[:, None]
            # Cavity walls are seen from both sides, everything else from outside.
            hit = (weights.min(1) >= 0) & ((area > 0) | (names == "cavity")) & (area != 0)
            expected = False
            if hit.any():
                depth = np.where(hit, (weights * corners[..., 2]).sum(1), -np.inf)
                seen = depth.argmax()
                expected = names[seen] not in ("skin", "neck")
                u, v = weights[seen] @ uv_coords[triangles[seen]]
                if names[seen] in ("skin", "neck") and 0 <= min(u, v) and max(u, v) <= 1:
                    row, column = np.rint([255 * (1 - v), 255 * u]).astype(int)
                    expected = face_mask[row, column]
            assert rendering.attention[item, y, x] == expected, (item, x, y)
            compared += 1
            faces_seen += expected
    assert 0.2 < faces_seen / compared < 0.8


def test_landmarks_and_matrix_are_those_of_the_fit(faces: SyntheticFaces) -> None:
    items = [faces.parameters(k) for k in range(4)]
    rendering = render(faces, items)
    landmarks = head_points(faces, rendering)[:, faces.head.landmark_index]
    torch.testing.assert_close(rendering.landmarks, landmarks, atol=1e-3, rtol=0)
    for fit, item, matrix in zip(
        faces.renderer.fits(items), items, rendering.crop_from_model, strict=True
    ):
        expected = image_from_model(
            torch.tensor(fit.scale),
            torch.tensor(fit.angles),
            torch.tensor(fit.translation),
            torch.tensor(float(SIZE)),
        )
        np.testing.assert_array_equal(fit.shape_params, item.shape_params)
        assert fit.translation[2] == 0
        difference = matrix.double() - expected
        # Only depth is shifted, so that the face begins at 0.
        difference[2, 3] = 0
        assert difference.abs().max() < 1e-4
    window = faces.face.morphable_model(rendering.shape_params, rendering.exp_params)
    depth = transform_points(rendering.crop_from_model, window)[..., 2]
    torch.testing.assert_close(depth.amin(1), torch.zeros(4), atol=1e-3, rtol=0)


def test_framing_places_the_landmarks_box(faces: SyntheticFaces) -> None:
    """Scale 1.5 about the box of the 68, as PRN's crops: [0, S - 1] is 1.5 times its mean side."""
    rendering = render(faces, [bare(faces, 0), bare(faces, 1, yaw_deg=60)])
    low, high = rendering.landmarks[..., :2].amin(1), rendering.landmarks[..., :2].amax(1)
    torch.testing.assert_close((low + high) / 2, torch.full((2, 2), (SIZE - 1) / 2))
    torch.testing.assert_close((high - low).mean(1), torch.full((2,), (SIZE - 1) / 1.5))


def test_far_half_of_the_landmarks_hides_as_the_head_turns(faces: SyntheticFaces) -> None:
    turns = (0, 90, -90)
    items = [bare(faces, 0, yaw_deg=turn) for turn in turns]
    rendering = render(faces, [item._replace(shape_params=np.zeros(80)) for item in items])
    front, right, left = rendering.landmarks_visible
    assert front[17:].all()
    # A positive yaw turns the nose to the left of the image: the subject's right eye is far.
    assert rendering.landmarks[1, 30, 0] < rendering.landmarks[1, 36:48, 0].min()
    assert not right[36:42].any()
    assert right[43:47].all()
    assert not left[42:48].any()
    assert left[[36, 37, 38, 41]].all()


def test_landmark_behind_an_occluder_is_hidden(faces: SyntheticFaces) -> None:
    items = [bare(faces, k) for k in range(12)]
    clear = render(faces, items)
    blocked = render(faces, [item._replace(occluder_seed=k) for k, item in enumerate(items)])
    lost = clear.attention & ~blocked.attention
    assert not (blocked.attention & ~clear.attention).any()
    changed = (clear.image - blocked.image).abs().amax(1) > 0
    assert (changed | ~lost).all()
    assert 0 < (clear.landmarks_visible & ~blocked.landmarks_visible).sum()
    assert not (blocked.landmarks_visible & ~clear.landmarks_visible).any()


def test_teeth_show_only_in_an_open_mouth(faces: SyntheticFaces) -> None:
    items = [bare(faces, 4), bare(faces, 4, jawOpen=0.9), bare(faces, 4, jawOpen=0.5)]
    items = [item._replace(shape_params=np.zeros(80)) for item in items]
    seen = seen_looks(faces, items)
    teeth = (seen == LOOKS.index("teeth")).sum((1, 2))
    mouth = torch.isin(seen, torch.tensor([LOOKS.index(part) for part in MOUTH_PARTS])).sum((1, 2))
    assert teeth[0] <= 4
    assert teeth[1] > 20
    assert mouth[1] > mouth[2] > mouth[0]


def test_open_mouth_and_lids_leave_no_hole(faces: SyntheticFaces) -> None:
    """From brow to nose between the ears, and about the lips, every pixel is face."""
    expressions = [{}, {"jawOpen": 1.0}, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}]
    expressions += [{"eyeWideLeft": 1.0, "eyeWideRight": 1.0, "mouthFunnel": 1.0}]
    items = [bare(faces, k, **exp) for k, exp in enumerate(expressions)]
    rendering = render(faces, items)
    seen = seen_looks(faces, items)
    for item in range(len(items)):
        x, y = rendering.landmarks[item, :, :2].unbind(-1)
        upper = slice(int(y[19:25].min()), int(y[33])), slice(int(x[4]) + 2, int(x[12]) - 1)
        lower = slice(int(y[33]), int(y[57])), slice(int(x[48]), int(x[54]))
        assert rendering.attention[item][upper].all()
        assert rendering.attention[item][lower].all()
        # Lids hide the eyes when shut.
        eyes = (seen[item] == EYE).sum()
        assert (eyes < 12) == (item == 2)


def test_every_expression_renders(faces: SyntheticFaces) -> None:
    names, turns = faces.head.exp_names, (-105, -60, 0, 60, 105)
    items = [bare(faces, k, yaw_deg=turns[k % 5], **{name: 1.0}) for k, name in enumerate(names)]
    rendering = render(faces, items)
    assert rendering.image.isfinite().all()
    assert rendering.image.min() >= 0
    assert rendering.image.max() <= 1
    # A head fills a good part of its crop, from every side.
    assert (rendering.attention.float().mean((1, 2)) > 0.15).all()


@pytest.mark.parametrize("yaw_deg", [0, 50, -85])
def test_position_map_agrees_with_what_is_drawn(faces: SyntheticFaces, yaw_deg: int) -> None:
    item = bare(faces, 5, yaw_deg=yaw_deg, mouthSmileLeft=0.7, mouthSmileRight=0.7)
    rendering = render(faces, [item])
    decoder = PositionMapDecoder(faces.face.morphable_model, faces.face.uv, texels="all")
    position_map = decoder(rendering.shape_params, rendering.exp_params, rendering.crop_from_model)

    head = faces.head
    points = head_points(faces, rendering)
    raster = rasterize(points, head.triangles, height=SIZE, width=SIZE, cull_back_faces=True)
    skin = head.region_names.index("skin")
    chosen = (raster.triangle >= 0) & rendering.attention
    chosen &= head.triangle_region[raster.triangle.clamp(min=0)] == skin
    _, row, column = chosen.nonzero().unbind(1)
    corners = head.triangles[raster.triangle[chosen]]
    uv = (raster.barycentric[chosen][..., None] * head.uv_coords[corners]).sum(1)
    grid = torch.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]], -1)[None, None]
    drawn = torch.stack([column.float(), row.float(), raster.depth[chosen]])
    mapped = torch.nn.functional.grid_sample(position_map, grid, align_corners=True)[0, :, 0]
    error = (mapped - drawn).norm(dim=0)
    assert len(error) > 2000
    assert error.median() < 0.05
    assert error.quantile(0.95) < 0.3


def test_rendering_does_not_depend_on_the_batch(faces: SyntheticFaces) -> None:
    """Any rounding that depends on the neighbours in a batch shows here."""
    items = [faces.parameters(k) for k in range(18)]
    together = render(faces, items)
    for number in (0, 7, 17):
        alone = render(faces, [items[number]])
        for name, one, many in zip(alone._fields, alone, together, strict=True):
            assert torch.equal(one[0], many[number]), name


def test_soft_light_is_a_clamped_cosine() -> None:
    random = np.random.default_rng(0)
    normals = random.normal(size=(4000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    direction = np.array([0.6, 0.0, 0.8])
    got = polynomial_terms(normals) @ soft_light(direction, np.array([1.0, 0.5, 2.0]))
    expected = np.clip(normals @ direction, 0, None)
    np.testing.assert_allclose(got[:, 1], 0.5 * got[:, 0])
    assert np.abs(got[:, 0] - expected).max() < 0.1
    assert abs((got[:, 0] - expected).mean()) < 0.01


def test_hard_light_shines_and_casts_a_shadow(faces: SyntheticFaces) -> None:
    """From the side a face shades itself: less light with shadows, never more."""
    side = np.array([0.6, -0.6, 0.5]) / np.linalg.norm([0.6, -0.6, 0.5])
    lights = [
        LIGHT._replace(direction=side, color=np.full(3, 0.6 * on), shadow=float(casts))
        for on, casts in ((0, 0), (1, 0), (1, 1))
    ]
    dark, plain, cast = render(faces, [bare(faces, 6)._replace(light=x) for x in lights]).image
    assert (plain - dark).mean() > 0.03
    assert (cast <= plain + 1 / 255).all()
    assert ((plain - cast) > 0.05).float().mean() > 0.005
    # Only the face is lit, and its far side less.
    lit = (cast - dark).mean(0)
    assert lit[:, SIZE // 2 :].sum() > 1.2 * lit[:, : SIZE // 2].sum()


@pytest.mark.parametrize("direction", [(0.6, 0.0, 0.8), (0.0, -1.0, 0.0), (-0.28, 0.96, 0.0)])
def test_light_sees_the_head_from_its_side(faces: SyntheticFaces, direction: tuple) -> None:
    """The map is a turn, right-handed, with z to the light, and the head fills its middle."""
    scene, side = faces.renderer.scene, 64
    batch = stack([faces.parameters(0)])
    points = scene.vertices(batch.shape_params, batch.exp_params, batch.accessories)[0].numpy()
    matrix, depth = shadow_map(points, scene, np.array(direction, np.float32), side)
    scale = np.linalg.norm(matrix[0, :3])
    turn = matrix[:, :3].astype(np.float64) / scale
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(turn) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(turn[2], direction, atol=1e-6)
    head = points[: scene.num_head] @ matrix[:, :3].T + matrix[:, 3]
    low, high = head.min(0)[:2], head.max(0)[:2]
    np.testing.assert_allclose((low + high) / 2, (side - 1) / 2, atol=1e-3)
    assert (high - low).max() == pytest.approx(0.76 * (side - 1), rel=1e-5)
    assert depth.max() >= head[:, 2].max() - 2  # px: a pixel's centre is seldom the nearest point


def test_pictures_are_those_of_the_formulas(faces: SyntheticFaces) -> None:
    """Before the camera; some have shadows, some have none."""
    items = [faces.parameters(k) for k in range(10)]
    items[3] = bare(faces, 3, jawOpen=1.0, eyeWideLeft=1.0)
    items = [item._replace(film=IDENTITY_FILM) for item in items]
    assert 0 < sum(item.light.shadow for item in items) < len(items)
    got = render(faces, items)
    painted = [paint(faces, *each) for each in zip(items, got.crop_from_model, strict=True)]
    image, attention = (torch.from_numpy(np.stack(part)) for part in zip(*painted, strict=True))
    assert (got.attention != attention).float().mean() < 1e-4
    difference = (got.image - srgb_encode(image.clamp(0, 1))).abs()
    # Where two surfaces meet, or a strand of hair begins, rounding decides.
    assert (difference > 2 / 255).float().mean() < 2e-3
    assert difference.mean() < 1e-4


def test_stack_and_select_undo_each_other(faces: SyntheticFaces) -> None:
    items = [faces.parameters(k) for k in range(3)]
    batch = stack(items)
    assert batch.shape_params.shape == (3, 80)
    assert batch.index.tolist() == [0, 1, 2]
    one = select(batch, 1)
    assert torch.equal(one.light.color, torch.tensor(items[1].light.color).float())
    assert one.material._fields == items[1].material._fields


@pytest.mark.parametrize("size", [16, 100])
def test_sizes_that_cannot_be_drawn_are_refused(faces: SyntheticFaces, size: int) -> None:
    with pytest.raises(ValueError, match=f"got {size}, expected a multiple of 16"):
        Renderer(faces.head, faces.face, size=size)


def test_highlights_are_named_after_kinds() -> None:
    assert HIGHLIGHTS.keys() <= set(KIND_NAMES)
