"""What tests of the evaluator share: its command in this process, the truth of the tiny faces
written out again, and networks that say what they are told."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import scipy.io
import torch
from omegaconf import OmegaConf
from torch import nn

from prnet.datasets.evaluation import EvaluationItem, TestSet
from prnet.entry import shipped_values
from prnet.eval import run_evaluation
from prnet.evaluation.evaluate import EvaluationOptions, evaluate
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.sources import NetworkSource
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.geometry.pose_parameters import NUM_POSE
from prnet.models.network import Network
from prnet.sample import Prediction
from tests.configurations import composed
from tests.tiny import AFLW2000_YAWS_DEG, HEIGHT, TinyFit, project, tiny_face

NAMES = sorted(AFLW2000_YAWS_DEG)
# X and Y of the y-up plane to columns and rows, written out again.
PLACED = {
    "zero_based": lambda x, y: (x - 1, HEIGHT - y),
    "matlab": lambda x, y: (x, HEIGHT + 1 - y),
    "face3d": lambda x, y: (x, HEIGHT - 1 - y),
    "sadrnet": lambda x, y: (x, HEIGHT - y),
}
POINT_METRICS = "protocol.metrics=[nme_68_2d,nme_68_3d,nme_dense_2d,nme_dense_3d]"
# An ICP that is short, not right.
SHORT_ICP = ["protocol.reconstruction.levels=[1]", "protocol.reconstruction.iterations=2"]
SMALL = 1e-3  # percent; the bases and the UV weights are float32


def true_vertices(data_dir: Path, name: str, origin: str) -> np.ndarray:
    """(98, 3), image px."""
    content = scipy.io.loadmat(data_dir / "AFLW2000" / f"{name}.mat")
    fit = TinyFit(
        content["Shape_Para"].ravel(), content["Exp_Para"].ravel(), content["Pose_Para"].ravel()
    )
    x, y, z = project(tiny_face().vertices(fit.shape_params, fit.exp_params), fit.pose).T
    return np.stack([*PLACED[origin](x, y), z], -1)


def at_texels(face, vertices: np.ndarray, texels: np.ndarray) -> np.ndarray:
    """Barycentric interpolation at flat texel indices."""
    index = face.uv.vertex_index.numpy().reshape(-1, 3)[texels]
    weights = face.uv.barycentric.numpy().reshape(-1, 3)[texels].astype(float)
    return (vertices[index] * weights[:, :, None]).sum(1)


def face_pixels(face, vertices: np.ndarray) -> np.ndarray:
    return at_texels(face, vertices, face.uv.face_index.numpy())


def cells(face, vertices: np.ndarray) -> np.ndarray:
    row, column = face.uv.landmark_cells.numpy().T
    return at_texels(face, vertices, 256 * row + column)


def box_size(points: np.ndarray) -> float:
    return float(np.sqrt(np.prod(np.ptp(points[:, :2], axis=0))))


def run(data_dir: Path, tmp_path: Path, *overrides: str) -> dict:
    """The report of `python -m prnet.eval`, in this process, the pictures of its curves left empty:
    drawing takes longer than all else."""
    cfg = composed("eval", "dataset=aflw2000", f"data_dir={data_dir}", "device=cpu", *overrides)
    with patch("prnet.reports.writing.draw_ced", lambda _curves, path, **_look: path.touch()):
        return run_evaluation(cfg, tmp_path)


def means(report: dict) -> dict[str, float]:
    return {metric: summary["mean"] for metric, summary in report["metrics"].items()}


def nme_means(report: dict) -> dict[str, float]:
    """Without the head pose, which is that of the mean face, not of the true one."""
    return {metric: mean for metric, mean in means(report).items() if metric.startswith("nme")}


@functools.cache
def shipped(name: str, *overrides: str) -> Protocol:
    cfg = composed("eval", f"protocol={name}", *overrides)
    return Protocol.from_values(OmegaConf.to_container(cfg.protocol, resolve=True))


class Scripted(Network):
    """Returns given position maps in turn, and counts the images it has seen."""

    def __init__(self, position_maps: list[torch.Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.position_maps = position_maps
        self.images: list[torch.Tensor] = []
        self.modes: list[bool] = []

    def forward(self, image: torch.Tensor) -> Prediction:
        start = len(self.images)
        self.images += list(image)
        self.modes.append(self.training)
        return Prediction(torch.stack(self.position_maps[start : start + len(image)]))


class Coefficients(Network):
    """Returns given parameters in turn."""

    def __init__(self, parameters: list[torch.Tensor], *, num_shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.parameters_of_images = parameters
        self.num_parameters, self.num_shape = len(parameters[0]), num_shape
        self.num_exp = self.num_parameters - NUM_POSE - num_shape
        self.seen = 0

    def forward(self, image: torch.Tensor) -> Prediction:
        part = self.parameters_of_images[self.seen : self.seen + len(image)]
        self.seen += len(image)
        return Prediction(parameters=torch.stack(part))


class Items(TestSet):
    """Given items as a test set."""

    name = "items"

    def __init__(
        self,
        items: Sequence[EvaluationItem],
        face: Face | None = None,
        *,
        point_groups: Sequence[Sequence[int]] | None = None,
        yaws_deg: Mapping[str, float] | None = None,
    ) -> None:
        self.items = list(items)
        self.names = [item.name for item in items]
        self.truth_face = face
        self.point_groups = point_groups
        self.yaws_deg = yaws_deg

    def __getitem__(self, index: int) -> EvaluationItem:
        return self.items[index]

    def yaw_labels(self, names: Sequence[str]) -> Mapping[str, float] | None:
        return self.yaws_deg


def score_network(
    model: nn.Module,
    test_set: TestSet,
    face: Face,
    protocol: Protocol,
    *,
    batch_size: int = 4,
    **options: object,
) -> dict:
    """The report of a network of this face."""
    source = NetworkSource(model, face, description="a network", **options)
    options = EvaluationOptions(batch_size=batch_size, progress=False)
    return evaluate(source, test_set, protocol, options)


def true_maps(batches, face) -> list[torch.Tensor]:
    """What a perfect network would say: each sample's position map in its crop."""
    maps = []
    for batch in batches:
        vertices = face.morphable_model(batch.shape_params, batch.exp_params).double()
        crop_from_image = camera.invert_affine(batch.image_from_crop)
        points = camera.transform_points(crop_from_image @ batch.image_from_model, vertices)
        maps += list(face.uv.position_map(points).float())
    return maps


def true_parameters(batches) -> list[torch.Tensor]:
    """What a perfect network of parameters would say, depth aside: each sample's own in its
    crop."""
    parameters = []
    for batch in batches:
        matrix = camera.invert_affine(batch.image_from_crop) @ batch.image_from_model
        pose = matrix[:, :3] * torch.tensor([1.0, -1, 1], dtype=torch.float64)[:, None]
        parameters += list(
            torch.cat([pose.flatten(1), batch.shape_params, batch.exp_params], 1).float()
        )
    return parameters


def made_report(
    folder: Path,
    name: str,
    *,
    source="checkpoint outputs/prn/T/best.pt (model prn)",
    protocol="prn",
    count=2000,
    dataset="aflw2000",
    metrics=None,
    changes=None,
    **more,
) -> Path:
    """A report.json of `python -m prnet.eval`, without images."""
    summary = {"mean": 3.001, "mean_of_bins": 3.345, "std_of_bins": 0.5}
    summary["bins"] = {
        label: {"mean": 1.111 * (i + 1), "n": 5}
        for i, label in enumerate(("0-30", "30-60", "60-90"))
    }
    values = {
        "dataset": dataset,
        "source": source,
        "count": count,
        "protocol": {
            **(shipped_values("protocol", protocol) or {"name": protocol}),
            **(changes or {}),
        },
        "metrics": {"nme_68_2d": summary} if metrics is None else metrics,
        **more,
    }
    path = folder / name
    path.write_text(json.dumps(values))
    return path
