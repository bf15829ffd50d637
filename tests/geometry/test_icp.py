"""The ICP: known motions, a plain implementation and a library as oracles, exact neighbours."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from prnet.geometry import icp as module
from prnet.geometry.icp import DEFAULT_RULE, DIRECTIONS, IcpRule, fit_similarity, icp
from prnet.geometry.pairing import Pairing
from prnet.geometry.search_tree import search_tree

PLAIN = IcpRule(levels=(1,))


def relief(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A half ellipsoid of some 100 px with a nose, eyes and a mouth, (N, 3)."""
    z = np.sqrt(np.maximum(3 - x**2 - y**2, 0))
    for at_x, at_y, width, height in [
        (0, 0, 0.2, 0.5),
        (0.4, 0.4, 0.15, -0.3),
        (0, -0.5, 0.25, 0.2),
    ]:
        for side in (-1, 1) if at_x else (1,):
            z += height * np.exp(-((x - side * at_x) ** 2 + (y - at_y) ** 2) / width**2)
    return np.stack([60 * x, 80 * y, 70 * z], -1)


def surface(seed: int, count: int = 900) -> np.ndarray:
    return relief(*np.random.default_rng(seed).uniform(-1, 1, (2, count)))


def motion(seed: int, *, with_scale: bool) -> tuple[float, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    scale = float(random.uniform(0.9, 1.1)) if with_scale else 1.0
    rotation = Rotation.from_rotvec(random.normal(0, 0.05, 3)).as_matrix()
    return scale, rotation, random.normal(0, 200, 3)


def moved(points: np.ndarray, scale: float, rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return scale * points @ rotation.T + shift


def pair(seed: int, side: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Two grids on one surface, as position maps are, the second shifted, bent and moved."""
    random = np.random.default_rng(seed)
    clouds = []
    for offset in (0, random.uniform(-0.02, 0.02)):
        x, y = np.stack(np.meshgrid(*2 * [np.linspace(-1, 1, side) + offset])).reshape(2, -1)
        clouds.append(relief(x, y))
    bent = clouds[1] + 2 * np.sin(clouds[1][:, [1, 2, 0]] / 20 + random.uniform(0, 6, 3))
    return clouds[0], moved(bent, *motion(seed, with_scale=True))


def plain_icp(current, target, *, with_scale, direction, iterations):
    """Distances of the pairs by the textbook: every neighbour anew, Kabsch by scipy."""
    for step in range(iterations + 1):
        if direction == "target_to_source":
            moving, fixed = current[cKDTree(current).query(target)[1]], target
        else:
            moving, fixed = current, target[cKDTree(target).query(current)[1]]
        distances = np.linalg.norm(moving - fixed, axis=1)
        if step == iterations:
            return distances
        moving_mean, fixed_mean = moving.mean(0), fixed.mean(0)
        turn, _ = Rotation.align_vectors(fixed - fixed_mean, moving - moving_mean)
        turned = (moving - moving_mean) @ turn.as_matrix().T
        scale = 1.0
        if with_scale:
            scale = (turned * (fixed - fixed_mean)).sum() / (turned**2).sum()
        current = scale * (current - moving_mean) @ turn.as_matrix().T + fixed_mean
    raise AssertionError


@pytest.mark.parametrize("with_scale", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_known_motion_is_recovered(seed, direction, with_scale):
    """Permuted points, so that only geometry pairs them; read-only arguments."""
    source, known = surface(seed), motion(seed, with_scale=with_scale)
    order = np.random.default_rng(seed).permutation(len(source))
    target = moved(source, *known)[order]
    source.setflags(write=False)
    target.setflags(write=False)
    found = icp(source, target, with_scale=with_scale, rule=IcpRule(direction=direction))
    assert found.converged
    assert found.scale == pytest.approx(known[0], abs=1e-9)
    np.testing.assert_allclose(found.rotation, known[1], atol=1e-9)
    np.testing.assert_allclose(found.translation, known[2], atol=1e-6)
    assert found.distances.max() < 1e-6
    truth = np.zeros(len(order), dtype=int)
    truth[order] = np.arange(len(order))  # source i lies at target truth[i]
    assert (truth[found.source_index] == found.target_index).all()


def centred(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return source + target.mean(0) - source.mean(0)


@pytest.mark.parametrize("with_scale", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_ends_where_200_plain_iterations_end(direction, with_scale):
    """The oracle shares no line with the package: levels and reuse change the way only."""
    source, target = pair(0)
    expected = plain_icp(
        centred(source, target),
        target,
        with_scale=with_scale,
        direction=direction,
        iterations=200,
    )
    found = icp(source, target, with_scale=with_scale, rule=IcpRule(direction=direction))
    assert found.converged
    assert found.distances.mean() == pytest.approx(expected.mean(), rel=1e-3)


def test_rule_is_the_documented_one():
    """Every reconstruction number hangs on it."""
    assert (
        IcpRule(
            direction="target_to_source",
            iterations=200,
            tolerance=3e-6,
            trim=0.0,
            start="centroids",
            levels=(16, 4, 1),
            memory=0,
        )
        == DEFAULT_RULE
    )


def test_coarse_levels_end_sooner(monkeypatch):
    """n times fewer points define a result n^2 times less well, and no level has under 1,000."""
    asked = []

    def watched(pairing, params, rule, tolerance):
        asked.append((len(pairing.queries), tolerance))
        return descend(pairing, params, rule, tolerance)

    descend = module._descend
    monkeypatch.setattr(module, "_descend", watched)
    source, target = pair(0, side=70)
    icp(source, target, with_scale=True, rule=IcpRule(levels=(16, 4, 1), tolerance=1e-4))
    count = len(target)
    assert [n for n, _ in asked] == [1000, max(1000, count // 4), count]
    assert [tolerance for _, tolerance in asked] == pytest.approx([256e-4, 16e-4, 1e-4])


@pytest.mark.parametrize("with_scale", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("memory", [0, 3])
@pytest.mark.parametrize("seed", range(1, 3))
def test_plain_iterations_stay_where_it_ends(seed, memory, direction, with_scale):
    """The result is a fixed point of plain ICP, and its parts agree with each other."""
    source, target = pair(seed)
    rule = IcpRule(direction=direction, memory=memory)
    found = icp(source, target, with_scale=with_scale, rule=rule)
    assert found.converged
    reached = moved(source, found.scale, found.rotation, found.translation)
    apart = reached[found.source_index] - target[found.target_index]
    np.testing.assert_allclose(np.linalg.norm(apart, axis=1), found.distances, atol=1e-9)
    on = plain_icp(reached, target, with_scale=with_scale, direction=direction, iterations=5)
    assert found.distances.mean() == pytest.approx(on.mean(), rel=2e-4)
    moved_on = np.abs(found.distances - on).max()
    assert moved_on < 0.02  # px


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_plain_rule_is_the_textbook_step_by_step(direction, iterations):
    source, target = pair(7, 30)
    rule = PLAIN._replace(direction=direction, iterations=iterations, tolerance=0)
    found = icp(source, target, with_scale=True, rule=rule)
    expected = plain_icp(
        centred(source, target), target, with_scale=True, direction=direction, iterations=iterations
    )
    np.testing.assert_allclose(found.distances, expected, rtol=1e-9)
    assert (found.iterations, found.converged) == (iterations, False)


def test_rigid_matches_trimesh():
    """A library's plain ICP from the same start; its scale is not least-squares, so none here."""
    registration = pytest.importorskip("trimesh.registration")
    source, target = pair(0, 40)
    start = np.eye(4)
    start[:3, 3] = target.mean(0) - source.mean(0)
    matrix, expected, _ = registration.icp(
        source,
        target,
        initial=start,
        threshold=0,
        max_iterations=100,
        scale=False,
        reflection=False,
    )
    found = icp(source, target, with_scale=False, rule=IcpRule(direction="source_to_target"))
    np.testing.assert_allclose(found.rotation, matrix[:3, :3], atol=2e-4)
    apart = np.linalg.norm(expected - target[found.target_index], axis=1)
    assert apart.mean() == pytest.approx(found.distances.mean(), rel=1e-3)


@pytest.mark.parametrize("from_target", [False, True])
def test_neighbours_stay_exact_through_any_motion(from_target):
    """Small motions reuse what is known, large ones search again: never another neighbour."""
    random = np.random.default_rng(0)
    queries, static = surface(1, 300) / 80, surface(2, 400) / 80
    tree = search_tree(static)
    pairing = Pairing(queries, tree, True, from_target, 0.0)
    params = np.zeros(7)
    for size in [0, 1e-4, 1e-3, 1e-2, 0.1, 1e-3, 0.5, 1e-2, 0] * 3:
        params = params + size * random.normal(0, 1, 7)
        scale, turn = np.exp(params[6]), Rotation.from_rotvec(params[:3]).as_matrix()
        distances = pairing.match(params)
        if from_target:
            static_moved, at = moved(static, scale, turn, params[3:6]), queries
        else:
            static_moved, at = static, moved(queries, scale, turn, params[3:6])
        apart = np.linalg.norm(static_moved[None] - at[:, None], axis=-1)
        np.testing.assert_array_equal(tree.order[pairing.neighbour], apart.argmin(1))
        np.testing.assert_allclose(distances, apart.min(1), rtol=1e-9)


@pytest.mark.parametrize("cloud", ["three", "nine", "twice", "line", "corners"])
def test_nearest_points_of_clouds_that_are_hard_to_halve(cloud):
    """Fewer points than candidates, points at one place, no extent along an axis, ties."""
    random = np.random.default_rng(0)
    static = {
        "three": random.normal(size=(3, 3)),
        "nine": random.normal(size=(9, 3)),
        "twice": np.tile(random.normal(size=(40, 3)), (5, 1)),
        "line": random.normal(size=(100, 1)) * [0.0, 1.0, 0.0],
        "corners": np.stack(np.meshgrid(*[np.arange(6.0)] * 3), -1).reshape(-1, 3),
    }[cloud]
    tree = search_tree(static)
    assert sorted(tree.order.tolist()) == list(range(len(static)))
    np.testing.assert_array_equal(tree.points, static[tree.order])
    queries = np.concatenate([random.normal(size=(50, 3)), static, np.rint(static) + 0.5])
    pairing = Pairing(queries, tree, False, False, 0.0)
    for shift in (0.0, 0.5, -0.25, 40.0):
        found = pairing.match(np.array([0, 0, 0, shift, 0, 0, 0]))
        apart = np.linalg.norm(static[None] - (queries + [shift, 0, 0])[:, None], axis=-1)
        np.testing.assert_allclose(found, apart.min(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trim", [0.0, 0.3])
@pytest.mark.parametrize("with_scale", [False, True])
@pytest.mark.parametrize("from_target", [False, True])
def test_step_is_the_least_squares_similarity_of_the_pairs(from_target, with_scale, trim):
    queries, static = (points - points.mean(0) for points in (surface(1, 300), surface(2, 400)))
    queries, static = queries / 80, static / 80
    tree = search_tree(static)
    pairing = Pairing(queries, tree, with_scale, from_target, trim)
    params = np.array([0.9, -2.2, 1.3, 0.1, 0.2, -0.3, 0.4 if with_scale else 0.0])
    distances = pairing.match(params)
    kept = np.argsort(distances)[: pairing.num_kept]
    paired = static[tree.order[pairing.neighbour[kept]]], queries[kept]
    source, target = paired if from_target else paired[::-1]
    scale, rotation, translation = fit_similarity(source, target, with_scale=with_scale)

    squared, stepped = pairing.step(params)

    assert squared == pytest.approx(np.square(distances[kept]).mean(), rel=1e-9)
    np.testing.assert_allclose(np.exp(stepped[6]), scale, rtol=1e-7)
    turn = Rotation.from_rotvec(stepped[:3]).as_matrix()
    np.testing.assert_allclose(turn, rotation, atol=1e-7)
    np.testing.assert_allclose(stepped[3:6], translation, atol=1e-7)


def test_trimming_keeps_outliers_out_of_the_fit():
    """A tenth of the truth is somewhere else; their distances still count."""
    source, known = surface(4), motion(4, with_scale=False)
    target = moved(source, *known)
    target[::10] += np.array([0, 0, 400.0])
    rule = IcpRule(trim=0.15, start="identity", levels=(1,))
    source = moved(source, 1.0, np.eye(3), known[2])
    trimmed = icp(source, target, with_scale=False, rule=rule)
    np.testing.assert_allclose(trimmed.rotation, known[1], atol=1e-8)
    assert np.sort(trimmed.distances)[: int(0.89 * len(target))].max() < 1e-6
    assert trimmed.distances[::10].min() > 100
    untrimmed = icp(source, target, with_scale=False, rule=rule._replace(trim=0.0))
    assert np.abs(untrimmed.translation - trimmed.translation).max() > 10


def test_extrapolation_takes_fewer_iterations():
    iterations = {
        memory: sum(
            icp(*pair(seed), with_scale=True, rule=PLAIN._replace(memory=memory)).iterations
            for seed in range(4)
        )
        for memory in (0, 3)
    }
    assert iterations[3] < 0.8 * iterations[0]


def test_start_says_where_the_search_begins():
    source, target = surface(5), surface(5) + 300
    as_given = icp(source, target, with_scale=False, rule=IcpRule(start="identity", iterations=0))
    nearest = cKDTree(source).query(target)
    np.testing.assert_allclose(as_given.distances, nearest[0], rtol=1e-12)
    np.testing.assert_array_equal(as_given.source_index, nearest[1])
    np.testing.assert_allclose(as_given.translation, 0, atol=1e-10)
    centred = icp(source, target, with_scale=False, rule=IcpRule(iterations=0))
    np.testing.assert_allclose(centred.translation, 300, atol=1e-9)
    assert centred.distances.max() < 1e-9


def test_mirror_image_is_not_a_match():
    source = surface(6)
    found = icp(source, source * [-1, 1, 1], with_scale=True)
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    assert found.distances.mean() > 1


def test_result_moves_with_both_sides():
    """The unit and the frame do not matter: micrometres or pixels, anywhere."""
    source, target = pair(0)
    found = icp(source, target, with_scale=True)
    known = (1e3, Rotation.from_rotvec([0.3, -0.2, 1.0]).as_matrix(), np.array([1e4, -5e3, 2e4]))
    turned = icp(moved(source, *known), moved(target, *known), with_scale=True)
    assert turned.distances.mean() == pytest.approx(1e3 * found.distances.mean(), rel=1e-3)
    assert turned.scale == pytest.approx(found.scale, rel=1e-4)
    np.testing.assert_allclose(turned.rotation, known[1] @ found.rotation @ known[1].T, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direction": "both"}, "direction: got 'both', expected one of target_to_source, source"),
        ({"start": "landmarks"}, "start: got 'landmarks', expected one of centroids, identity"),
        ({"iterations": -1}, "iterations -1.*none below 0"),
        ({"tolerance": -1.0}, "tolerance -1; expected none below 0"),
        ({"memory": -1}, "memory -1"),
        ({"trim": 1.0}, "trim: got 1, expected a share"),
        ({"levels": ()}, r"levels: got \(\).*end in 1"),
        ({"levels": (4, 2)}, "levels.*end in 1"),
        ({"levels": (0, 1)}, "levels.*end in 1"),
    ],
)
def test_wrong_rules_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        icp(surface(0), surface(1), with_scale=False, rule=DEFAULT_RULE._replace(**change))


def test_wrong_points_are_refused():
    good = surface(0)
    with pytest.raises(ValueError, match=r"source: got points \(900, 2\), expected \(N, 3\)"):
        icp(good[:, :2], good, with_scale=False)
    with pytest.raises(ValueError, match=r"target: got points \(2, 3\)"):
        icp(good, good[:2], with_scale=False)
    bad = good.copy()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="target: holds coordinates that are not finite"):
        icp(good, bad, with_scale=False)
    with pytest.raises(ValueError, match="target: all points coincide"):
        icp(good, np.ones((5, 3)), with_scale=False)
    line = np.linspace(0, 1, 20)[:, None] * np.ones(3)
    with pytest.raises(ValueError, match="lie on a line"):
        icp(good, line, with_scale=False)
