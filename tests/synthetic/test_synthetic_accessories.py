"""Hair, glasses, hats, clothes, hands and objects of the synthetic world."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from prnet.faces.embedded import load_head
from prnet.geometry.mesh import vertex_normals
from prnet.geometry.rasterize import rasterize
from prnet.synthetic.parameters import stack
from prnet.synthetic.render.palette import HIGHLIGHT_TABLE
from prnet.synthetic.render.strips import ALPHA, COLOR, ROWS, STRIP
from prnet.synthetic.render.surfaces import accessories as draw_surfaces
from prnet.synthetic.worn.accessories import (
    CUTOUT,
    LENS,
    OPAQUE,
    Accessories,
    AccessoryRule,
    draw_accessories,
)
from prnet.synthetic.worn.head_chart import FIRST_ROW, LAST_ROW
from prnet.synthetic.worn.headwear_styles import HeadwearRule
from prnet.synthetic.worn.patterns import KIND_NAMES, Paint, with_body_colors
from prnet.synthetic.worn.solids import NOWHERE_MM, join, sheet, superquadric, tube
from tests.painter import accessory_color
from tests.worlds import shipped_world

RULE = shipped_world().accessories
HAIR, HEADWEAR, HANDS = RULE.hair, RULE.headwear, RULE.hands
BARE_HEAD = HAIR._replace(worn=0, beard=0)
BARE = HeadwearRule(hat=0, hood=0, wrap=0, garment=0)
IDLE = HANDS._replace(hand=0, object=0)
NOTHING = AccessoryRule(hair=BARE_HEAD, headwear=BARE, hands=IDLE, glasses=0, sunglasses=0)
SIZE = 320  # pictures of the tests: 1 px = 1 mm, the origin in the middle


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def accessories(head):
    return Accessories(head)


@pytest.fixture(scope="module")
def people(head):
    """Eight heads, (8, N, 3), um; the second half with an expression."""
    generator = torch.Generator().manual_seed(0)
    shape = torch.randn(8, head.morphable_model.num_shape, generator=generator).clamp(-2, 2)
    expression = 0.3 * torch.rand(8, head.morphable_model.num_exp, generator=generator)
    expression[:4] = 0
    return head.morphable_model(shape, expression)


def draw(rule, count=8, seed=0):
    return stack([draw_accessories(np.random.default_rng([seed, i]), rule) for i in range(count)])


def of_kind(accessories, *names):
    """Triangles of these kinds."""
    kinds = torch.tensor([KIND_NAMES.index(name) for name in names])
    return accessories.triangles[torch.isin(accessories.kind, kinds)]


def depth(vertices, triangles, axes=(0, 1, 2)):
    """Largest coordinate `axes[2]`, mm, at every whole millimetre of the other two, (B, Y, X)."""
    x, y, z = (vertices[..., axis] / 1000 for axis in axes)
    picture = torch.stack([x + SIZE / 2, SIZE / 2 - y, z], -1)
    return rasterize(picture, triangles, height=SIZE, width=SIZE).depth


def test_topology(accessories):
    count = len(accessories.triangles)
    assert count < 14_000
    assert {len(accessories.layer), len(accessories.kind), len(accessories.two_sided)} == {count}
    assert torch.equal(accessories.triangles.unique(), torch.arange(accessories.num_vertices))
    assert accessories.uv.shape == (accessories.num_vertices, 2)
    assert accessories.uv.min() >= 0
    assert accessories.uv.max() <= 1.02
    assert accessories.kind.unique().tolist() == list(range(len(KIND_NAMES)))
    layers = {
        name: accessories.layer[accessories.kind == kind].unique().tolist()
        for kind, name in enumerate(KIND_NAMES)
    }
    assert layers.pop("lens") == [LENS]
    assert layers.pop("hair") == layers.pop("beard") == [CUTOUT]
    assert all(layer == [OPAQUE] for layer in layers.values())


def test_solids_are_closed(accessories):
    """Every edge of a triangle that may be culled runs once each way."""
    solid = accessories.triangles[~accessories.two_sided]
    edges = torch.cat([solid[:, [0, 1]], solid[:, [1, 2]], solid[:, [2, 0]]])
    codes = edges[:, 0] * accessories.num_vertices + edges[:, 1]
    opposite = edges[:, 1] * accessories.num_vertices + edges[:, 0]
    assert len(codes.unique()) == len(codes)
    assert torch.equal(codes.sort().values, opposite.sort().values)


def test_solids_are_outward(accessories, people):
    """Clockwise from outside in the y-up frame: the signed volume is negative."""
    rule = NOTHING._replace(
        hair=HAIR._replace(short=0, medium=0, long=0, tied=1),
        hands=HANDS._replace(hand=1, both=1, object=1),
        glasses=1,
    )
    parameters = draw(rule)
    tied = parameters.hair._replace(bun_worn=torch.ones(8))
    vertices = accessories.vertices(people, parameters._replace(hair=tied)).double() / 1000
    for name in ("hair", "glasses_frame", "hand", "object"):
        kind = accessories.kind == KIND_NAMES.index(name)
        corners = vertices[:, accessories.triangles[kind & ~accessories.two_sided]]
        corners = corners - corners.new_tensor([0.0, 0.0, 100.0])
        volume = torch.linalg.det(corners).sum(-1) / 6
        assert (volume < -100).all(), name


def test_primitives():
    part = tube(12, 15)
    ball = superquadric(torch.tensor([[3.0, 4.0, 5.0]]), torch.ones(1, 2), 12, 15)
    volume = -torch.linalg.det(ball[0][part.triangles].double()).sum() / 6
    assert volume.item() == pytest.approx(4 / 3 * math.pi * 60, rel=0.07)
    box = superquadric(torch.tensor([[3.0, 4.0, 5.0]]), torch.full((1, 2), 0.05), 12, 15)
    assert box[0].abs().amax(0).tolist() == pytest.approx([3, 4, 5], rel=0.15)
    both = join([sheet(2, 2), tube(3, 2)])
    assert both.two_sided.tolist() == [True] * 2 + [False] * 8
    assert both.triangles[:2].max() == 3
    assert both.triangles[2:].min() == 4


def test_nothing_worn_is_one_point(accessories, people):
    vertices = accessories.vertices(people, draw(NOTHING))
    nowhere = 1000 * torch.tensor(NOWHERE_MM)
    assert torch.equal(vertices, nowhere.expand_as(vertices))
    assert nowhere[2] < people[..., 2].min() - 1e6


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("glasses_frame", NOTHING._replace(glasses=1)),
        ("lens", NOTHING._replace(sunglasses=1)),
        ("hat", NOTHING._replace(headwear=BARE._replace(hat=1))),
        ("hood", NOTHING._replace(headwear=BARE._replace(hood=1))),
        ("garment", NOTHING._replace(headwear=BARE._replace(garment=1))),
        ("hand", NOTHING._replace(hands=IDLE._replace(hand=1))),
        ("object", NOTHING._replace(hands=IDLE._replace(object=1))),
        ("hair", NOTHING._replace(hair=HAIR._replace(worn=1, beard=0))),
        ("beard", NOTHING._replace(hair=BARE_HEAD._replace(beard=1))),
    ],
)
def test_what_is_worn_is_there(accessories, people, name, rule):
    """It has an area, near the head; and it alone (but for what comes with it)."""
    together = {"lens": {"glasses_frame"}, "glasses_frame": {"lens"}, "object": {"hand"}}
    vertices = accessories.vertices(people, draw(rule)) / 1000
    for other in KIND_NAMES:
        corners = vertices[:, of_kind(accessories, other)]
        edges = corners[:, :, 1:] - corners[:, :, :1]
        area = torch.linalg.cross(edges[:, :, 0], edges[:, :, 1]).norm(dim=-1).sum(-1) / 2
        if other == name:
            assert (area > 100).all()
            worn = corners[(corners[..., 2] > NOWHERE_MM[2]).all(-1)]
            assert worn.abs().max() < 500
        elif other not in together.get(name, set()):
            assert (area == 0).all(), other


def test_batch_equals_items_and_arguments_are_kept(accessories, people):
    rule = RULE._replace(
        headwear=HEADWEAR._replace(hat=0.5, hood=0.3, wrap=0.5),
        hands=HANDS._replace(hand=0.5, both=0.5, object=0.5),
        glasses=0.5,
    )
    parameters, before = draw(rule), people.clone()
    together = accessories.vertices(people, parameters)
    assert torch.isfinite(together).all()
    assert torch.equal(people, before)
    samples = [draw_accessories(np.random.default_rng([0, i]), rule) for i in range(8)]
    for number, sample in enumerate(samples):
        alone = accessories.vertices(people[number : number + 1], stack([sample]))
        assert torch.equal(alone[0], together[number]), number


def flatten(values):
    if isinstance(values, tuple):
        return np.concatenate([flatten(field) for field in values])
    return np.asarray(values, dtype=np.float64).ravel()


def test_draws_are_reproducible():
    rule = RULE
    draws = [flatten(draw_accessories(np.random.default_rng(seed), rule)) for seed in (5, 5, 6)]
    one, same, other = draws
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.isfinite(one).all()


def test_rates_follow_the_rule():
    rule, count = RULE, 2000
    draws = [draw_accessories(np.random.default_rng([1, i]), rule) for i in range(count)]
    lens, alpha = KIND_NAMES.index("lens"), Paint._fields.index("alpha")
    dark = np.array([drawn.paint[lens, alpha] > 0.5 for drawn in draws])
    glasses = np.array([drawn.glasses.worn for drawn in draws])
    thing = np.array([drawn.hands.object_worn for drawn in draws])
    hand = np.array([drawn.hands.worn[0] for drawn in draws])
    found = {
        "hair": (np.mean([drawn.hair.worn for drawn in draws]), rule.hair.worn),
        "glasses": (np.mean(glasses * ~dark), rule.glasses),
        "sunglasses": (np.mean(glasses * dark), rule.sunglasses),
        "hat": (np.mean([d.headwear.hat_worn for d in draws]), rule.headwear.hat),
        "hood": (np.mean([d.headwear.hood_worn for d in draws]), rule.headwear.hood),
        "garment": (np.mean([d.headwear.garment_worn for d in draws]), rule.headwear.garment),
        "object": (np.mean(thing), rule.hands.object),
        # A hand also comes with a telephone; apart from those it follows its own rate.
        "hand": (np.mean(hand[thing == 0]), rule.hands.hand),
    }
    for name, (share, rate) in found.items():
        assert abs(share - rate) < 4 * math.sqrt(rate * (1 - rate) / count), name
    assert not any(d.headwear.hat_worn and d.headwear.hood_worn for d in draws)


def test_hair_styles_must_sum_to_one():
    rule = RULE._replace(hair=HAIR._replace(short=0.9))
    with pytest.raises(ValueError, match=r"shares sum to 1\.5400, expected 1"):
        draw_accessories(np.random.default_rng(0), rule)


def test_chart_follows_the_mean(accessories, head):
    """A node's point lies on its own ray, and on the surface of the head."""
    chart = accessories.chart
    measured = chart.measure(head.morphable_model.mean[None])
    azimuth, row, _ = chart.locate(measured.points.flatten(0, 2))
    turn = azimuth.view(len(chart.azimuth), -1) - chart.azimuth[:, None]
    turn = torch.remainder(turn + 1, 2 * math.pi) - 1
    # Interpolation in the chart bends the triangles a little; next to the crown most in azimuth,
    # through the ears' holes most of all.
    assert (turn.abs()[:, 3:] * chart.rows[3:].clamp(max=1) < 0.06).float().mean() > 0.97
    assert ((row.view(len(chart.azimuth), -1) - chart.rows).abs() < 0.02).float().mean() > 0.97
    tree = cKDTree(head.morphable_model.mean[: head.num_surface] / 1000)
    distance, _ = tree.query(measured.points.flatten(0, 2).numpy())
    assert np.quantile(distance, 0.9) < 5
    assert torch.equal(measured.landmarks[0], head.morphable_model.mean[head.landmark_index] / 1000)
    assert measured.ear.max() > 8
    assert (measured.ear[:, chart.azimuth.abs() < 0.9] == 0).all()


def test_chart_looks_up_its_nodes(accessories, people):
    chart = accessories.chart
    points = chart.measure(people).points
    azimuth = chart.azimuth[[0, 7, 32, 63]].expand(len(people), -1)
    row = chart.rows[[0, 9, 20, 43]].expand(len(people), -1)
    found = chart.look_up(points, azimuth, row)
    assert torch.allclose(found, points[:, [0, 7, 32, 63], [0, 9, 20, 43]], atol=1e-2)
    assert (FIRST_ROW, LAST_ROW) == pytest.approx((row[0, 0].item(), row[0, 3].item()))
    # The chart is closed behind the head.
    behind = torch.tensor([[math.pi - 1e-4, -math.pi + 1e-4]]).expand(len(people), -1)
    left, right = chart.look_up(points, behind, torch.ones_like(behind)).unbind(1)
    assert (left - right).norm(dim=-1).max() < 0.1


def test_lenses_stand_before_the_eyes(accessories, head, people):
    parameters = draw(NOTHING._replace(glasses=0.5, sunglasses=0.5))
    vertices = accessories.vertices(people, parameters)
    lens = depth(vertices, of_kind(accessories, "lens"))
    skin = depth(people, head.triangles)
    covered = lens > -500
    assert (covered.flatten(1).sum(1) > 1000).all()
    # The inner edges of wide lenses may touch the nose's flanks, nothing else may.
    inside = ((lens < skin) & covered).flatten(1).sum(1)
    assert (inside < 0.02 * covered.flatten(1).sum(1)).all()
    eyes = head.landmark_index[36:48]
    for number in range(len(people)):
        x, y, z = (people[number, eyes] / 1000).unbind(-1)
        column, row = (x + SIZE / 2).round().long(), (SIZE / 2 - y).round().long()
        before = lens[number, row, column]
        assert (before[before > -500] > z[before > -500] + 2).all()
        assert (before > -500).float().mean() > 0.8


@pytest.mark.parametrize("sign", [-1, 1])
def test_temples_run_past_the_head_to_the_ears(accessories, head, people, sign):
    vertices = accessories.vertices(people, draw(NOTHING._replace(glasses=1), seed=3))
    frame = vertices[:, of_kind(accessories, "glasses_frame").unique()] / 1000
    top = people[:, accessories.glasses.ear_index[(sign + 1) // 2]] / 1000
    assert ((frame - top[:, None]).norm(dim=-1).amin(1) < 9).all()
    assert (frame[..., 2].amin(1) < top[:, 2] - 10).all()
    # Seen from the side, no temple is hidden by the head between the hinge and the ear.
    mirrored = torch.tensor([sign, 1.0, 1.0])
    skin = depth(people * mirrored, head.triangles, axes=(2, 1, 0))
    for number in range(len(people)):
        x, y, z = (frame[number] * mirrored).unbind(-1)
        passing = (x > 40) & (z > top[number, 2] + 25) & (z < 75)
        x, y, z = x[passing], y[passing], z[passing]
        column, row = (z + SIZE / 2).round().long(), (SIZE / 2 - y).round().long()
        assert len(x) > 0
        assert (x - skin[number, row, column]).min() > -0.5


def outside(points, head, vertices):
    """Distance in front of the nearest vertex's tangent plane, mm; ears and inner parts aside."""
    outward = -vertex_normals(vertices[None], head.triangles)[0]
    skull = (head.masks["ears"] < 0.05).clone()
    skull[head.num_surface :] = False
    skin = (vertices[skull] / 1000).numpy()
    _, nearest = cKDTree(skin).query(points.numpy())
    return ((points.numpy() - skin[nearest]) * outward[skull].numpy()[nearest]).sum(-1)


def winding_number(points, corners):
    """How often a closed surface runs round each point: 1 inside, 0 outside (van Oosterom and
    Strackee's solid angles, summed)."""
    a, b, c = (corners[:, k] - points[:, None] for k in range(3))
    la, lb, lc = (v.norm(dim=-1) for v in (a, b, c))
    above = (a * torch.linalg.cross(b, c)).sum(-1)
    below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return -2 * torch.atan2(above, below).sum(-1) / (4 * math.pi)


def test_hair_stays_outside_the_skull(accessories, head, people):
    """Also outside the ears; far above the open end of the neck."""
    rule = NOTHING._replace(hair=HAIR._replace(worn=1, beard=0, volume=0.1))
    vertices = accessories.vertices(people, draw(rule)) / 1000
    hair = vertices[:, : len(accessories.hair.sheets.uv)]
    surface = head.triangles[(head.triangles < head.num_surface).all(1)]
    skull = torch.tensor([[0.0, 60.0, 10.0]])
    generator = torch.Generator().manual_seed(0)
    for number in range(len(people)):
        corners = people[number][surface] / 1000
        assert winding_number(skull, corners) > 0.85
        worn = hair[number][(hair[number, :, 2] > NOWHERE_MM[2]) & (hair[number, :, 1] > -80)]
        some = worn[torch.randperm(len(worn), generator=generator)[:150]]
        assert winding_number(some, corners).max() < 0.5
        assert np.median(outside(worn, head, people[number])) > 1.0


def test_natural_hairline_leaves_the_face_free(accessories, head, people):
    """Short and tied hair without a fringe or loose locks: no landmark but the jaw's is covered."""
    rule = HAIR._replace(worn=1, short=0.5, medium=0, long=0, tied=0.5, fringe=0, locks=0, beard=0)
    parameters = draw(NOTHING._replace(hair=rule), seed=4)
    hair = depth(accessories.vertices(people, parameters), of_kind(accessories, "hair"))
    face = people[:, head.landmark_index[17:]] / 1000
    column = (face[..., 0] + SIZE / 2).round().long()
    row = (SIZE / 2 - face[..., 1]).round().long()
    sample = torch.arange(len(people))[:, None]
    assert (hair[sample, row, column] < face[..., 2]).all()
    # A fringe does cover something between the brows and the natural hairline.
    fringed = draw(NOTHING._replace(hair=rule._replace(fringe=1)), seed=4)
    lower = depth(accessories.vertices(people, fringed), of_kind(accessories, "hair"))
    forehead = (slice(None), slice(SIZE // 2 - 110, SIZE // 2 - 50), slice(115, 205))
    assert (lower[forehead] > 40).sum() > 1.3 * (hair[forehead] > 40).sum()


def test_long_hair_hangs_below_the_chin(accessories, head, people):
    rule = HAIR._replace(worn=1, short=0, medium=0, long=1, tied=0, beard=0)
    vertices = accessories.vertices(people, draw(NOTHING._replace(hair=rule)))
    chin = people[:, head.landmark_index[8], 1]
    shell = vertices[:, : len(accessories.hair.sheets.uv), 1]
    assert (shell.amin(1) < chin - 10_000).all()


def test_hats_cover_hair_and_skull(accessories, head, people):
    """Seen from above, the dome hides hair and skin; the hair's crown is pressed down under it."""
    rule = NOTHING._replace(hair=HAIR._replace(worn=1, volume=2), headwear=BARE._replace(hat=1))
    vertices = accessories.vertices(people, draw(rule, seed=2))
    axes = (0, 2, 1)
    hat = depth(vertices, of_kind(accessories, "hat"), axes)
    hair = depth(vertices, of_kind(accessories, "hair"), axes)
    skin = depth(people, head.triangles, axes)
    middle = slice(SIZE // 2 - 40, SIZE // 2 + 40)
    window = (slice(None), middle, middle)
    assert (hat[window] > skin[window]).all()
    assert (hat[window] > hair[window]).float().mean() > 0.995


def test_clothes_cover_the_end_of_the_neck(accessories, head, people):
    """From in front, no skin shows below the neckline of a closed collar."""
    parameters = draw(NOTHING._replace(headwear=BARE._replace(garment=1)), seed=8)
    collar = parameters.headwear._replace(
        garment_row=torch.full((8,), 2.3), garment_neckline=torch.full((8,), 0.1)
    )
    vertices = accessories.vertices(people, parameters._replace(headwear=collar))
    cloth = depth(vertices, of_kind(accessories, "garment"))
    skin = depth(people, head.triangles)
    below = (slice(None), slice(SIZE // 2 + 115, SIZE // 2 + 155))
    shown = (skin[below] > cloth[below]).flatten(1).sum(1)
    assert (shown < 0.005 * (skin[below] > -500).flatten(1).sum(1)).all()


def test_hands_and_objects_lie_on_the_face(accessories, head, people):
    rule = NOTHING._replace(hands=HANDS._replace(hand=1, both=0, object=1))
    vertices = accessories.vertices(people, draw(rule, seed=5)) / 1000
    hand = vertices[:, of_kind(accessories, "hand").unique()]
    thing = vertices[:, of_kind(accessories, "object").unique()]
    for number in range(len(people)):
        fingers = hand[number, : len(accessories.hands.hands.uv) // 2]
        distance = outside(fingers, head, people[number])
        assert np.quantile(distance, 0.1) > -4
        worn = thing[number][thing[number, :, 2] > NOWHERE_MM[2]]
        assert np.quantile(outside(worn, head, people[number]), 0.2) > -8


def test_scalp_hair(accessories, head):
    weight = accessories.scalp_hair
    assert weight.shape == (len(head.morphable_model.mean),)
    assert weight.min() >= 0
    assert weight.max() <= 1
    assert (weight[head.landmark_index[17:]] == 0).all()
    assert weight[head.morphable_model.mean[:, 1].argmax()] == 1
    assert (weight[head.num_surface :] == 0).all()
    assert torch.allclose(weight, weight[head.mirror_index], atol=0.01)


def drawn(kind: int, uv: np.ndarray, paint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear RGB (M, 3) and alpha (M,) as the compiled loops give them, at u and v (M, 2)."""
    count = len(uv)
    attributes = np.concatenate([uv, np.zeros((STRIP, 2))]).astype(np.float32)
    rgb, alpha = np.zeros((count, 3), np.float32), np.zeros(count, np.float32)
    weights = np.zeros((3, STRIP))
    weights[0] = 1
    strip, is_face = np.zeros((ROWS, STRIP), np.float32), np.zeros(STRIP, bool)
    for start in range(0, count, STRIP):
        corners = np.tile(np.arange(start, start + STRIP, dtype=np.uint32), (3, 1))
        within = slice(0, min(STRIP, count - start))
        arguments = attributes, kind, paint, HIGHLIGHT_TABLE[kind]
        draw_surfaces(strip, is_face, within.stop, corners, weights, *arguments)
        rgb[start : start + STRIP] = strip[COLOR : COLOR + 3, within].T
        alpha[start : start + STRIP] = strip[ALPHA, within]
        assert not is_face.any()
    return rgb, alpha


def test_color_and_alpha():
    parameters = draw(RULE._replace(sunglasses=1), count=4)
    hair_color, skin_color = torch.full((4, 3), 0.1), torch.rand(4, 3)
    paint = with_body_colors(parameters.paint, hair_color=hair_color, skin_color=skin_color)
    hand = KIND_NAMES.index("hand")
    assert torch.equal(paint[:, hand, :3], skin_color)
    assert not torch.equal(paint, parameters.paint)

    uv = np.random.default_rng(0).random((300, 2))
    for sample in range(4):
        for kind, name in enumerate(KIND_NAMES):
            rgb, alpha = drawn(kind, uv, paint[sample, kind].numpy())
            for values in (rgb, alpha):
                assert np.isfinite(values).all()
                assert values.min() >= 0
                assert values.max() <= 1
            if name not in ("hair", "beard", "lens"):
                assert (alpha == 1).all()
            if name == "lens":
                assert (alpha < 1).all()
                assert alpha.mean() > 0.4
            formula = accessory_color(kind, torch.from_numpy(uv), paint[sample, kind].double())
            for got, expected in zip((rgb, alpha), formula, strict=True):
                # Where one cell ends and the next begins, rounding decides.
                assert (np.abs(got - expected.numpy()) > 2e-3).mean() < 0.01


def test_strands_end_ragged():
    """Hair is solid at the roots, gone past the tips, and both between: strand by strand."""
    values = dict.fromkeys(Paint._fields, 0.1) | {"scale_u": 300.0, "scale_v": 3.0, "seed": 7.0}
    row = np.array(Paint(**values | {"alpha": 1.0, "ragged": 0.4}), np.float32)
    u = np.linspace(0, 1, 1000)

    def alpha_at(v, name="hair"):
        return drawn(KIND_NAMES.index(name), np.stack([u, np.full(1000, v)], -1), row)[1]

    assert (alpha_at(0.1) > 0.99).all()
    assert (alpha_at(1.05) == 0).all()
    ends = alpha_at(0.8)
    assert 0.2 < ends.mean() < 0.8
    assert ends.std() > 0.3
    # A beard thins out towards its roots too.
    assert alpha_at(0.0, "beard").mean() < 0.15
    assert (alpha_at(0.46, "beard") > 0.99).all()
