"""The error, its unit, its depth rule, and the protocols that put them together."""

import json

import numpy as np
import pytest
import torch

from prnet.evaluation.protocol import METRICS, Protocol
from prnet.evaluation.score import FacePoints, group_landmarks, pose_left_out, score
from prnet.geometry.camera import rotation_from_angles
from prnet.geometry.icp import DEFAULT_RULE
from prnet.metrics.nme import Z_ALIGNMENTS, align_depth, bbox_size, nme
from tests.evaluations import shipped

PROTOCOLS = ("default", "2dasl", "3ddfa", "prn", "sadrnet")
POINT_METRICS = ("nme_68_2d", "nme_68_3d", "nme_dense_2d", "nme_dense_3d")


def random_points(count: int, *, seed: int, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 100 * torch.randn(batch, count, 3, generator=generator, dtype=torch.float64)


def test_bbox_size_is_the_geometric_mean_of_the_sides():
    """Known values; z and the order of the points do not count."""
    corners = torch.tensor([[[1.0, 2.0, -50.0], [5.0, 11.0, 90.0], [3.0, 3.0, 0.0]]])
    assert bbox_size(corners).tolist() == [6.0]  # sqrt(4 * 9), not the diagonal's 9.85
    assert bbox_size(corners[:, [2, 0, 1], :2]).tolist() == [6.0]


def test_align_depth_known_values_and_leaves_its_argument_alone():
    points = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 9.0]]])
    before = points.clone()
    assert align_depth(points, "mean")[..., 2].tolist() == [[-3.0, 3.0]]
    assert align_depth(points, "min")[..., 2].tolist() == [[0.0, 6.0]]
    assert torch.equal(align_depth(points, "none"), points)
    for rule in Z_ALIGNMENTS:
        assert torch.equal(align_depth(points, rule)[..., :2], points[..., :2])
    assert torch.equal(points, before)


def test_align_depth_refuses():
    with pytest.raises(ValueError, match="z alignment: got 'median'.*none, mean, min"):
        align_depth(random_points(4, seed=0), "median")
    with pytest.raises(ValueError, match=r"\(3, 4, 2\).*expected \(B, K, 3\)"):
        align_depth(random_points(4, seed=0)[..., :2], "mean")


def test_nme_known_value():
    """One point of two is off by a 3-4-12 diagonal: half of 13 px in 3D, half of 5 px in 2D."""
    truth = torch.zeros(1, 2, 3)
    prediction = torch.tensor([[[3.0, 4.0, 12.0], [0.0, 0.0, 0.0]]])
    size = torch.tensor([50.0])
    assert nme(prediction, truth, size).item() == pytest.approx(13.0)
    assert nme(prediction[..., :2], truth[..., :2], size).item() == pytest.approx(5.0)


def test_nme_is_per_sample_and_free_of_scale_and_position():
    """Batch = items; a similarity of the image changes nothing."""
    truth, prediction = random_points(20, seed=1), random_points(20, seed=2)
    errors = nme(prediction, truth, bbox_size(truth))
    assert errors.shape == (3,)
    for i in range(3):
        one = slice(i, i + 1)
        alone = nme(prediction[one], truth[one], bbox_size(truth[one]))
        assert alone.item() == pytest.approx(errors[i].item(), rel=1e-12)
    moved_truth, moved = 2.5 * truth + 7, 2.5 * prediction + 7
    assert torch.allclose(nme(moved, moved_truth, bbox_size(moved_truth)), errors, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", Z_ALIGNMENTS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_compiled_pass_is_what_is_differentiated(dtype, rule, dimensions):
    """Oracle: autograd's own path, of the same numbers in float64; strides do not matter. Of
    float32 points distances are float32."""
    rtol = 1e-13 if dtype == torch.float64 else 1e-7
    truth, prediction = (random_points(50, seed=seed).to(dtype) for seed in (1, 2))
    visible = random_points(50, seed=3)[..., 0] > 0
    rule = rule if dimensions == 3 else "none"
    sides = [side[..., :dimensions] for side in (prediction, truth)]
    slow = [side.double().clone().requires_grad_() for side in sides]
    size = bbox_size(slow[1])
    assert torch.allclose(bbox_size(sides[1]), size, rtol=1e-14)
    for mask in (None, visible):
        found = nme(*sides, size.detach(), mask, z_alignment=rule)
        assert torch.allclose(found, nme(*slow, size, mask, z_alignment=rule), rtol=rtol)
        strided = [side.flip(1).flip(1).mT.contiguous().mT for side in sides]
        assert torch.allclose(nme(*strided, size.detach(), mask, z_alignment=rule), found)
        arrays = [side.numpy() for side in sides]
        seen = None if mask is None else mask.numpy()
        of_arrays = nme(*arrays, bbox_size(arrays[1]), seen, z_alignment=rule)
        np.testing.assert_allclose(of_arrays, found.numpy(), rtol=rtol)
    assert nme(*slow, size).requires_grad


def test_nme_of_visible_points():
    """The others may hold anything, NaN too; a mask of all is no mask."""
    truth, prediction = random_points(6, seed=1), random_points(6, seed=2)
    size = bbox_size(truth)
    visible = torch.tensor([[1, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]]).bool()
    hidden = torch.where(visible[..., None], truth, torch.nan)
    errors = nme(prediction, hidden, size, visible)
    for i in range(3):
        kept = visible[i]
        alone = nme(prediction[i : i + 1, kept], truth[i : i + 1, kept], size[i : i + 1])
        assert errors[i].item() == pytest.approx(alone.item(), rel=1e-12)
    assert nme(prediction, truth, size, torch.zeros(3, 6).bool()).isnan().all()
    arrays = (side.numpy() for side in (prediction, hidden, size, visible))
    np.testing.assert_allclose(nme(*arrays), errors.numpy(), rtol=1e-13)


def test_grouped_landmarks_known_values():
    landmarks = torch.arange(68.0).expand(2, 3, 68).mT  # the point k at (k, k, k)
    points = group_landmarks(landmarks, [[0], [36, 37, 38, 39, 40, 41], [67, 1]])
    assert points.shape == (2, 3, 3)
    assert points[1, :, 0].tolist() == [0.0, 38.5, 34.0]


def test_points_of_a_data_set_are_scored_over_their_box():
    truth = FacePoints(
        points=torch.zeros(1, 2, 2),
        visible=torch.tensor([[True, False]]),
        box=torch.tensor([[10.0, 20.0, 110.0, 45.0]]),
    )
    prediction = FacePoints(points=torch.tensor([[[3.0, 4.0, 9.0], [50.0, 50.0, 9.0]]]))
    errors = score(prediction, truth, shipped("aflw"))
    assert errors["nme_points_2d"].item() == pytest.approx(100 * 5 / 50)
    assert score(prediction, FacePoints(), shipped("aflw")) == {}


ANGLES_DEG = torch.tensor([[5.0, 40.0, -3.0], [-100.0, 10.0, 0.0], [0.0, 98.9, -98.9]])


def test_pose_metrics_of_known_turns():
    truth = FacePoints(angles=torch.deg2rad(ANGLES_DEG).double())
    offset = torch.tensor([2.0, -3.0, 4.0])
    rotation = rotation_from_angles(torch.deg2rad(ANGLES_DEG + offset).double())
    errors = score(FacePoints(rotation=rotation), truth, shipped("pose"))
    assert list(errors) == list(shipped("pose").metrics)
    found = {metric: values[0].item() for metric, values in errors.items()}
    del found["pose_geodesic"]
    expected = {"pose_mae_yaw": 3.0, "pose_mae_pitch": 2.0, "pose_mae_roll": 4.0, "pose_mae": 3.0}
    assert found == pytest.approx(expected, abs=1e-4)
    assert score(FacePoints(), truth, shipped("pose")) == {}
    assert score(FacePoints(rotation=rotation), FacePoints(), shipped("pose")) == {}


def test_images_left_out_of_the_pose():
    """By the truth beyond 99 degrees; by SADRNet's "fix" those off in pitch and not in yaw."""
    truth = FacePoints(angles=torch.deg2rad(ANGLES_DEG).double())
    off = torch.tensor([[25.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    rotation = rotation_from_angles(torch.deg2rad(ANGLES_DEG + off).double())
    prediction = FacePoints(rotation=rotation)

    def left_out(*overrides: str) -> list[bool]:
        return pose_left_out(prediction, truth, shipped("pose", *overrides)).tolist()

    assert left_out() == [False, True, False]
    assert left_out("protocol.pose.images=all") == [False, False, False]
    assert left_out("protocol.pose.images=all", "protocol.pose.fix=true")[0] is True
    assert pose_left_out(prediction, truth, shipped("default")) is None
    assert pose_left_out(prediction, FacePoints(), shipped("pose")) is None


def test_nme_refuses_other_shapes():
    points = random_points(5, seed=0)
    with pytest.raises(ValueError, match=r"\(3, 5, 3\).*\(3, 4, 3\) differ"):
        nme(points, points[:, :4], torch.ones(3))


def oracle(prediction, truth, size, dimensions: int, rule: str) -> list[float]:
    """The formula in plain numpy, sample by sample and point by point."""
    errors = []
    for predicted, true, unit in zip(prediction.numpy(), truth.numpy(), size, strict=True):
        zero = {"none": lambda z: 0.0, "mean": np.mean, "min": np.min}[rule]
        shift = np.array([0, 0, zero(predicted[:, 2]) - zero(true[:, 2])])
        distances = [
            np.sqrt(sum((p - q)[:dimensions] ** 2))
            for p, q in zip(predicted - shift, true, strict=True)
        ]
        errors.append(100 * np.mean(distances) / unit)
    return errors


@pytest.mark.parametrize("rule", Z_ALIGNMENTS)
@pytest.mark.parametrize("normalizer", ["box_68", "box_points"])
def test_score_against_a_direct_computation(rule, normalizer):
    """Every metric for every depth rule and unit."""
    protocol = shipped(
        "sadrnet", f"protocol.z_alignment={rule}", f"protocol.normalizer={normalizer}"
    )
    truth = FacePoints(random_points(68, seed=1), random_points(150, seed=2))
    prediction = FacePoints(random_points(68, seed=3), random_points(150, seed=4))
    errors = score(prediction, truth, protocol)
    assert list(errors) == list(POINT_METRICS)
    for metric in POINT_METRICS:
        points, dimensions, *_ = METRICS[metric]
        true = getattr(truth, points)
        box = truth.landmarks if normalizer == "box_68" else true
        sides = box[..., :2].numpy().max(1) - box[..., :2].numpy().min(1)
        size = np.sqrt(sides[:, 0] * sides[:, 1])
        expected = oracle(getattr(prediction, points), true, size, dimensions, rule)
        assert errors[metric].tolist() == pytest.approx(expected, rel=1e-12)
        assert errors[metric].dtype == torch.float64


@pytest.mark.parametrize("name", PROTOCOLS)
def test_truth_scores_zero_under_every_protocol(name):
    points = FacePoints(random_points(68, seed=1), random_points(150, seed=2))
    errors = score(points, points, shipped(name))
    assert set(errors) == set(shipped(name).metrics) & set(POINT_METRICS)
    assert all(values.tolist() == [0, 0, 0] for values in errors.values())


@pytest.mark.parametrize("rule", ["mean", "min"])
def test_depth_offset_does_not_count_where_depth_is_aligned(rule):
    """Each side by its own value over the points scored: 68 and dense are aligned apart."""
    truth = FacePoints(random_points(68, seed=1), random_points(150, seed=2))
    away = FacePoints(
        truth.landmarks + torch.tensor([0, 0, 40.0]), truth.dense - torch.tensor([0, 0, 9.0])
    )
    aligned = score(away, truth, shipped("sadrnet", f"protocol.z_alignment={rule}"))
    assert torch.stack(list(aligned.values())).abs().max() < 1e-10
    unaligned = score(away, truth, shipped("sadrnet", "protocol.z_alignment=none"))
    expected = 100 * 40 / bbox_size(truth.landmarks)
    assert torch.allclose(unaligned["nme_68_3d"], expected)
    assert unaligned["nme_68_2d"].tolist() == [0, 0, 0]


def test_score_leaves_out_what_has_no_points():
    truth = FacePoints(random_points(68, seed=1), None)
    flat = FacePoints(truth.landmarks[..., :2], random_points(150, seed=2))
    assert list(score(flat, truth, shipped("default"))) == ["nme_68_2d"]
    assert score(FacePoints(None, None), truth, shipped("default")) == {}


def test_shipped_protocols_say_what_the_papers_do():
    """Conventions of the published evaluations, field by field."""
    fields = "landmarks dense pixel_origin convert_origin z_alignment normalizer yaw_source".split()
    expected = {
        "default": ["pt3d_68", "map", "zero_based", True, "mean", "box_points", "pose_para"],
        "2dasl": ["pt3d_68", "vertices", "matlab", False, "min", "box_68", "pose_para"],
        "3ddfa": ["pt3d_68", "vertices", "matlab", False, "min", "box_68", "pose_para"],
        "prn": ["pt3d_68", "map", "face3d", False, "mean", "box_points", "labels"],
        "sadrnet": ["map", "map", "sadrnet", False, "mean", "box_points", "pose_para"],
    }
    for name, values in expected.items():
        protocol = shipped(name)
        assert protocol.name == name
        assert [getattr(protocol, field) for field in fields] == values
        assert protocol.bins == (30, 60)
        assert protocol.exclude == ()
        assert protocol.drop_worst == 0
        assert protocol.reconstruction.rule == DEFAULT_RULE
    assert shipped("2dasl").reconstruction.metric == "rec_2dasl"
    assert shipped("2dasl").reconstruction.normalizer == "box"
    assert shipped("prn").reconstruction.metric == "icp_similarity"
    assert shipped("sadrnet").reconstruction.metric == "rec_sadrnet"
    assert shipped("prn").reconstruction.normalizer == "outer_interocular_3d"
    assert (shipped("pose").pose.images, shipped("sadrnet").pose.images) == ("plausible", "all")
    assert [shipped(name).balanced.per_bin for name in PROTOCOLS] == [None, 232, 232, 232, None]
    assert shipped("aflw").metrics == shipped("aflw_lfpa").metrics == ("nme_points_2d",)
    assert shipped("3ddfa").metrics == ("nme_68_2d", "nme_dense_2d")
    assert shipped("prn").yaw_labels == "data/AFLW2000/yaw_new.csv"
    assert shipped("prn", "data_dir=/elsewhere").yaw_labels == "/elsewhere/AFLW2000/yaw_new.csv"


@pytest.mark.parametrize(
    ("yaw_deg", "label"),
    [
        (0.0, "0-30"),
        (30.0, "0-30"),
        (-30.0, "0-30"),
        (np.nextafter(30.0, 31), "30-60"),
        (-45.0, "30-60"),
        (60.0, "30-60"),
        (60.0001, "60-90"),
        (-90.0, "60-90"),
        (100.0, "60-90"),
        (-972.0, "60-90"),
    ],
)
def test_bins_are_closed_on_the_right_and_the_last_is_open(yaw_deg, label):
    assert shipped("default").bin_label(yaw_deg) == label


def test_other_bins():
    protocol = shipped("default", "protocol.bins=[15,30,45.5]")
    assert protocol.bin_labels == ["0-15", "15-30", "30-45.5", "45.5-90"]
    assert protocol.bin_label(-45.6) == "45.5-90"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("protocol.landmarks=pt2d", "protocol.landmarks: got 'pt2d', expected one of pt3d_68, map"),
        ("protocol.dense=all", "protocol.dense.*none, vertices, map"),
        ("protocol.pixel_origin=center", "protocol.pixel_origin.*zero_based, matlab, face3d"),
        ("protocol.z_alignment=median", "protocol.z_alignment.*none, mean, min"),
        ("protocol.normalizer=diagonal", "protocol.normalizer.*box_68, box_points"),
        ("protocol.yaw_source=roi", "protocol.yaw_source.*pose_para, labels"),
        ("protocol.metrics=[nme]", "protocol.metrics: got 'nme', expected one of nme_68_2d"),
        ("protocol.metrics=[]", "protocol.metrics is empty"),
        ("protocol.bins=[60,30]", "ascending degrees between 0 and 90"),
        ("protocol.bins=[30,90]", "ascending degrees between 0 and 90"),
        ("protocol.bins=[]", "ascending degrees"),
        ("protocol.crop.source=roi", "protocol.crop.source.*landmarks, box"),
        ("protocol.crop.source=box", "crop.boxes=FILE.csv"),
        ("protocol.crop.scale=0", "scale and span above 0"),
        ("protocol.crop.jitter=-0.1", "jitter at least 0"),
        ("protocol.reconstruction.metric=icp", "reconstruction.metric.*procrustes_corr, icp_rigid"),
        ("protocol.reconstruction.normalizer=eyes", "normalizer.*outer_interocular_3d, box"),
        ("protocol.reconstruction.direction=both", "direction.*target_to_source"),
        ("protocol.reconstruction.start=random", "start.*centroids, identity"),
        ("protocol.pose.points=map", "protocol.pose.points.*dense, landmarks"),
        ("protocol.pose.images=1969", "protocol.pose.images.*all, plausible"),
        ("protocol.balanced.per_bin=0", "protocol.balanced: got per_bin 0"),
        ("protocol.balanced.draws=0", "draws 0; expected at least 1"),
        ("protocol.curve.limit_deg=0", "limit of 0, expected it above 0"),
        ("protocol.drop_worst=-1", "protocol.drop_worst: got -1"),
    ],
)
def test_wrong_choices_are_refused_with_the_choices(override, message):
    with pytest.raises(ValueError, match=message):
        shipped("default", override)


def test_every_50th_vertex_needs_vertices():
    with pytest.raises(ValueError, match="every 50th vertex: choose protocol.dense=vertices"):
        shipped("2dasl", "protocol.dense=map")


def test_labels_need_a_file():
    with pytest.raises(ValueError, match="protocol.yaw_labels=FILE.csv"):
        shipped("prn", "protocol.yaw_labels=null")


def test_protocol_as_plain_values_makes_the_same_protocol():
    """Round trip; what is stored in a report is enough to repeat it."""
    protocol = shipped("2dasl", "protocol.exclude=[image02139,image03862]")
    values = protocol.to_values()
    assert values["exclude"] == ["image02139", "image03862"]
    assert type(values["metrics"]) is list
    assert json.loads(json.dumps(values)) == values
    assert Protocol.from_values(values) == protocol
