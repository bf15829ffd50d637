"""What is scored: a network that sees the pictures, or predictions that were saved.

Letters: B batch.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prnet.checks import name_list, require_choice
from prnet.datasets.evaluation import EvaluationBatch, TestSet
from prnet.datasets.given_landmarks import GivenLandmarks
from prnet.datasets.occluders import ImageOccluder
from prnet.datasets.predictions import (
    Topology,
    find_predictions,
    read_prediction,
    with_y_down,
    write_prediction,
)
from prnet.datasets.warp import warp_to_crop
from prnet.evaluation.points import (
    comparable,
    network_dense,
    network_points,
    saved_dense,
    saved_points,
    unrelated_faces,
)
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.score import FacePoints
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.models.face_decoder import FaceDecoder
from prnet.models.network import Network
from prnet.models.two_looks import mean_of_looks
from prnet.sample import Prediction

PRECISIONS = ("fp32", "bf16")


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions of CUDA cards in whole float32, which torch does not promise."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class NetworkOutput(NamedTuple):
    """What a network saw and said."""

    image: Tensor  # (B, 3, H, W), RGB in [0, 1]
    covered: Tensor | None  # (B, H, W), bool: an occluder hides the face there
    prediction: Prediction
    decoder: FaceDecoder


class Predicted(NamedTuple):
    """What is predicted of some images of a batch."""

    rows: slice  # the images
    points: FacePoints
    lacking: dict[str, str]  # field of `points` -> why it is None
    output: NetworkOutput | None = None


class Source:
    """What is scored: `predict` says what it makes of a batch.

    description: for the report.
    device: where its points are.
    face: on whose mesh it predicts; None: not known here.
    suffix: what the data set is called behind its name, where the images are changed.
    """

    description: str
    device: torch.device
    face: Face | None
    suffix = ""

    def names_of(self, test_set: TestSet) -> list[str]:
        """The images that it can be scored on.

        Raises:
            ValueError: there is none.
        """
        return list(test_set.names)

    def unmatched(self, test_set: TestSet, excluded: Sequence[str]) -> dict[str, set[str]]:
        """Images without a prediction as `missing`, predictions without an image as `unknown`."""
        return {}

    @contextlib.contextmanager
    def running(self, test_set: TestSet, protocol: Protocol) -> Iterator[None]:
        """For the time of an evaluation.

        Raises:
            ValueError: it cannot be scored on this test set under this protocol.
        """
        yield

    def predict(
        self, batch: EvaluationBatch, test_set: TestSet, protocol: Protocol
    ) -> list[Predicted]:
        raise NotImplementedError

    def notes(self) -> dict:
        """What a report says about how the predictions were made."""
        return {}


@dataclass(frozen=True, eq=False)
class NetworkSource(Source):
    """A network, which is run once an image, or on every crop that its face was looked at in.

    model: in any mode, and in the same one afterwards.
    face: that it predicts; on the model's device.
    pixel_origin: of the labels it learned from.
    precision: one of `PRECISIONS`.
    occluder: covers a part of every crop.
    given: landmarks that it is given beside the image.
    save_to: folder for NAME.npz of every image; scored under the same protocol they give the same
        errors.
    """

    model: Network
    face: Face
    _: KW_ONLY
    description: str
    pixel_origin: str = "zero_based"
    precision: str = "fp32"
    occluder: ImageOccluder | None = None
    given: GivenLandmarks | None = None
    save_to: Path | str | None = None

    def __post_init__(self) -> None:
        require_choice("precision", self.precision, PRECISIONS)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @functools.cached_property
    def decoder(self) -> FaceDecoder:
        return FaceDecoder(self.model, self.face)

    @property
    def suffix(self) -> str:
        return "" if self.occluder is None else f"_{self.occluder.occluder}_occluders"

    @contextlib.contextmanager
    def running(self, test_set: TestSet, protocol: Protocol) -> Iterator[None]:
        decodes = test_set.has_fits and protocol.needs_true_landmarks
        if decodes and test_set.truth_face is None and protocol.landmarks == "map":
            raise ValueError(f"protocol.landmarks=map: {test_set.no_face}")
        with evaluation_mode(self.model):
            yield

    def predict(
        self, batch: EvaluationBatch, test_set: TestSet, protocol: Protocol
    ) -> list[Predicted]:
        image, covered, prediction = self._look(batch)
        if batch.earlier_from_crop is not None:
            prediction = self._with_earlier(batch, prediction)
        truth_face = test_set.truth_face
        unrelated = unrelated_faces(self.face, truth_face, no_face=test_set.no_face)
        wanted = ("surface",) if unrelated else ("dense", "surface", "rotation")
        points = network_points(
            prediction,
            self.decoder,
            batch.image_from_crop,
            protocol,
            pixel_origin=self.pixel_origin,
            dense=self.save_to is not None or protocol.scores(*wanted),
        )
        if self.save_to is not None:
            save_points(Path(self.save_to), batch.names, points, protocol)
        dense = network_dense(points.dense, self.decoder, protocol, unrelated=unrelated)
        rotation = None
        if prediction.pose is not None and not unrelated:
            # A pose is of the model frame of the network's own face, which must be that of the
            # truth, and of the crop's y-up plane, which may be turned against the image's.
            rotation = turn_of(batch.image_from_crop) @ prediction.pose.rotation.double()
        points, lacking = comparable(
            points.landmarks,
            dense,
            truth_face,
            protocol,
            scanned=batch.scan is not None,
            rotation=rotation,
        )
        output = NetworkOutput(image, covered, prediction, self.decoder)
        return [Predicted(slice(0, len(batch.names)), points, lacking, output)]

    def _with_earlier(self, batch: EvaluationBatch, prediction: Prediction) -> Prediction:
        """The mean with what the network says of the crops of earlier looks."""
        looks = []
        for edge in batch.earlier_from_crop.unbind(1):
            crop_from_picture = (edge @ batch.crop_from_picture.double()).float()
            *_, seen = self._look(batch._replace(crop_from_picture=crop_from_picture))
            looks.append((seen, edge))
        (mean, before), *later = looks
        for seen, edge in (*later, (prediction, torch.eye(4).to(before))):
            moved = (edge @ camera.invert_affine(before)).float()
            mean, before = mean_of_looks(self.model, mean, seen, moved), edge
        return mean

    def _look(self, batch: EvaluationBatch) -> tuple[Tensor, Tensor | None, Prediction]:
        """The crops, (B, 3, S, S), where they are covered, (B, S, S), and what the network says. An
        occluder lies at one place of a crop: of two crops it covers not quite the same."""
        image, covered = warp_to_crop(batch.picture, batch.crop_from_picture), None
        if self.occluder is not None:
            image, covered = self.occluder(image, batch.names)
        bf16 = self.precision == "bf16"
        with without_tf32(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            beside = ()
            if self.given is not None:
                beside = self.given.of(batch, pixel_origin=self.pixel_origin)
            laid_out = image.contiguous(memory_format=torch.channels_last)
            return image, covered, self.model(laid_out, *beside)

    def notes(self) -> dict:
        notes = {"occlusion": "none" if self.occluder is None else self.occluder.occluder}
        # Of a network that takes landmarks (2DASL): where those that it is given come from.
        landmark_map = self.model.landmark_map
        return notes if landmark_map is None else {**notes, "landmark_map": landmark_map}


class PredictionSource(Source):
    """A folder of saved predictions, which may differ in what they hold."""

    def __init__(
        self,
        directory: Path | str,
        face: Face | None,  # of the truth: its meshes are known by their number of points
        *,
        no_face: str = "the face model is not there",  # why, where `face` is None
        topology: Topology,  # where the landmarks are on a mesh that is saved without them
        device: torch.device,
    ) -> None:
        """Raises FileNotFoundError or ValueError as `prnet.datasets.predictions.find_predictions`
        does."""
        self.directory = directory
        self.files = find_predictions(directory)
        self.description = f"predictions {directory}"
        self.face = None if face is None else face.to(device)
        self.no_face, self.topology, self.device = no_face, topology, device

    def names_of(self, test_set: TestSet) -> list[str]:
        names = [name for name in test_set.names if name in self.files]
        if not names:
            raise ValueError(
                f"{self.directory}: none of its {len(self.files)} predictions "
                f"({name_list(self.files)}) is of one of the {len(test_set)} images "
                f"({name_list(test_set.names)})"
            )
        return names

    def unmatched(self, test_set: TestSet, excluded: Sequence[str]) -> dict[str, set[str]]:
        known = set(test_set.names)
        return {
            "missing": known - self.files.keys(),
            "unknown": self.files.keys() - known - set(excluded),
        }

    def predict(
        self, batch: EvaluationBatch, test_set: TestSet, protocol: Protocol
    ) -> list[Predicted]:
        scanned = batch.scan is not None
        found = []
        for index, name in enumerate(batch.names):
            landmarks, dense = saved_points(
                with_y_down(
                    read_prediction(self.files[name]),
                    self.topology,
                    functools.partial(test_set.picture_height, name),
                ),
                self.topology,
                protocol,
                device=self.device,
            )
            dense = saved_dense(dense, self.face, no_face=self.no_face)
            points = comparable(landmarks, dense, self.face, protocol, scanned=scanned)
            found.append(Predicted(slice(index, index + 1), *points))
        return found


def turn_of(image_from_crop: Tensor) -> Tensor:  # (B, 4, 4)
    """The rotation from the crop's y-up plane to the image's, (B, 3, 3)."""
    flip = image_from_crop.new_tensor([1.0, -1.0, 1.0])
    linear = image_from_crop[:, :3, :3] * flip * flip[:, None]
    return linear / image_from_crop[:, 2, 2, None, None]


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """`model.eval()` for the time of the block; then every module is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def save_points(
    directory: Path, names: Sequence[str], points: FacePoints, protocol: Protocol
) -> None:
    """NAME.npz of a batch."""
    landmarks, dense = points.landmarks.cpu().numpy(), points.dense.cpu().numpy()
    for name, one_landmarks, one_dense in zip(names, landmarks, dense, strict=True):
        write_prediction(
            directory / f"{name}.npz",
            one_landmarks,
            one_dense,
            landmarks_origin=protocol.landmark_origin,
            vertices_origin=protocol.pixel_origin,
        )
