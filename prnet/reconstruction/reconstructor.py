"""From pictures to faces: detection, crops, the network, and everything in px of the picture.

Frames and units are those of `prnet`; "picture" is the image frame of the photo as it was handed
in. Letters: B faces, N vertices, T triangles, S shape and E expression coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from prnet.datasets.warp import warp_to_crop
from prnet.detection.detector import FaceDetector
from prnet.detection.framing import Framing, crop_from_picture
from prnet.detection.settling import settled
from prnet.detection.tilt import FoundFace, find_faces
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.geometry.align import umeyama
from prnet.geometry.pose_parameters import split_parameters
from prnet.models.face_decoder import FaceDecoder
from prnet.models.network import Network
from prnet.models.two_looks import mean_of_looks
from prnet.sample import Prediction
from prnet.workers import chunks

if TYPE_CHECKING:
    from prnet.reconstruction.texture import Texture

# Side of the crop over the mean side of the landmarks' box, as in training.
CROP_SCALE = 1.5
CROP_SIZE = 256
BATCH_SIZE = 16


@dataclass(frozen=True)
class HeadPose:
    """Weak perspective: picture = F (scale rotation model + translation), F = diag(1, -1, 1)."""

    scale: float  # px per model unit (micrometre)
    rotation: np.ndarray  # (3, 3), det +1, model frame -> y-up image plane
    translation: np.ndarray  # (3,), px of the y-up plane

    @property
    def angles_deg(self) -> np.ndarray:
        """Pitch, yaw, roll, (3,): order and signs of 3DDFA (positive: nose up, nose to the left of
        the picture, clockwise)."""
        return camera.angles_from_rotation(torch.from_numpy(self.rotation)).rad2deg().numpy()


@dataclass(frozen=True)
class FaceReconstruction:
    """One face of a picture; points in px of the picture, z toward the camera from the mesh's
    farthest point."""

    face: Face  # the face model
    picture: np.ndarray  # (H, W, 3), uint8 RGB
    framing: Framing  # the box that was looked at
    confidence: float | None  # of the detector, 0 to 1; None: the box was given
    # How far apart the landmarks of image and mirror image are, % of their box; None: the network
    # sees the image alone.
    uncertainty: float | None
    vertices: np.ndarray  # (N, 3), float32
    triangles: np.ndarray  # (T, 3), outward in the y-down image frame
    texture_coords: np.ndarray  # (N, 2), u and v
    landmarks: np.ndarray  # (68, 3), float32, order of iBUG
    position_map: np.ndarray  # (3, 256, 256), float32
    pose: HeadPose
    shape_params: np.ndarray | None  # (S,); None: the network predicts a map
    exp_params: np.ndarray | None  # (E,), as predicted
    # The boxes of earlier looks, in their order, which the face is the mean with
    # (`prnet.detection.settling.settled`).
    earlier_framings: tuple[Framing, ...] = ()

    # What is made of a face is imported where it is asked for: those modules know this class.

    def coefficients(self) -> dict[str, float]:
        """The expression as ARKit names it, name -> 0 to 1 (`named_coefficients`).

        Raises:
            ValueError: a face model whose expressions have no names, such as the BFM.
        """
        from prnet.reconstruction.arkit import named_values
        from prnet.reconstruction.coefficients import named_coefficients

        found = named_coefficients(self)
        return named_values(found.names, found.exp_params)

    def texture(self, *, size: int = 512) -> "Texture":
        """The photo in UV space, `picture` (size, size, 3), uint8 RGB, and `seen` (size, size),
        bool: which texels it shows (`texture_of`)."""
        from prnet.reconstruction.texture import texture_of

        return texture_of(self, size=size)

    def save(self, path: Path | str) -> list[Path]:
        """Write FILE.glb (the textured head), .obj (with its .mtl and .png), .ply or .npz; the
        files. `prnet.reconstruction.outputs.write_outputs` writes what else there is.

        Raises:
            ValueError: another suffix.
        """
        from prnet.reconstruction.outputs import save_face

        return save_face(self, Path(path))


class Look(NamedTuple):
    """What a network makes of the box of a face, before it is decoded."""

    framing: Framing
    crop_from_picture: Tensor  # (4, 4), float64
    prediction: Prediction  # B = 1
    landmarks: np.ndarray  # (68, 3), px of the picture, by which the face is framed anew
    earlier_framings: tuple[Framing, ...] = ()  # of the looks that the prediction is the mean with


class PredictedPoints(NamedTuple):
    """What a network said of some faces; crop px but for the last."""

    mesh: Tensor  # (B, N, 3)
    landmarks: Tensor  # (B, 68, 3)
    position_map: Tensor  # (B, 3, 256, 256)
    in_model_frame: Tensor  # (B, N, 3), the mesh before its pose


class Reconstructor:
    """A network with its face, and a detector.

    >>> faces = prnet.load()(picture)
    """

    def __init__(
        self,
        model: Network,
        face: Face,
        *,
        detector: FaceDetector | None = None,
        crop_scale: float = CROP_SCALE,
        pixel_origin: str = "zero_based",
        device: torch.device | str = "cpu",
    ) -> None:
        """`model` becomes one of eval mode with `face` attached.

        detector: what finds faces; None: one of its own, made when it is first needed.
        crop_scale: side of the crop over the mean side of the landmarks' box.
        pixel_origin: of the labels that the network learned from.
        """
        self.device = torch.device(device)
        self.face = face.to(self.device)
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()
        self.model.set_face(self.face)
        self.decoder = FaceDecoder(self.model, self.face)
        self.crop_scale = crop_scale
        self.pixel_origin = pixel_origin
        self._detector = detector

    @property
    def detector(self) -> FaceDetector:
        if self._detector is None:
            self._detector = FaceDetector()
        return self._detector

    def __call__(
        self,
        picture: np.ndarray,  # (H, W, 3), uint8 RGB
    ) -> list[FaceReconstruction]:
        """Every face of a picture, the largest first; none where none is found.

        Raises:
            ValueError: not a picture of that kind.
        """
        return self.of_found(picture, find_faces(self.detector, picture))

    def of_found(
        self,
        picture: np.ndarray,  # (H, W, 3), uint8 RGB
        found: Sequence[FoundFace],
    ) -> list[FaceReconstruction]:
        """The faces that a detector found, each of its best reading, in their order."""
        looks = settled(found, lambda framings: self._looks(picture, framings), self._mean)
        return [
            replace(face, confidence=one.detection.confidence)
            for one, face in zip(found, self._decoded(picture, looks), strict=True)
        ]

    def framed(
        self,
        picture: np.ndarray,  # (H, W, 3), uint8 RGB
        framings: Sequence[Framing],
    ) -> list[FaceReconstruction]:
        """The faces in given boxes."""
        return self._decoded(picture, self._looks(picture, framings))

    @torch.inference_mode()
    def _looks(
        self,
        picture: np.ndarray,  # (H, W, 3), uint8 RGB
        framings: Sequence[Framing],
    ) -> list[Look]:
        looks: list[Look] = []
        for part in chunks(framings, BATCH_SIZE):
            matrices = crop_from_picture(part, scale=self.crop_scale)
            image = torch.cat([self._crop(picture, matrix) for matrix in matrices])
            prediction = self.model(image.contiguous(memory_format=torch.channels_last))
            landmarks = self.decoder.landmarks(prediction)
            looks += [
                Look(framing, matrix, prediction.at(index), self._placed(landmarks[index], matrix))
                for index, (matrix, framing) in enumerate(zip(matrices, part, strict=True))
            ]
        return looks

    @torch.inference_mode()
    def _mean(self, earlier: Look, later: Look) -> Look:
        """What a look at a face and those before say together, in the crop of the later one."""
        edge = later.crop_from_picture @ camera.invert_affine(earlier.crop_from_picture)
        edge = edge[None].float().to(self.device)
        prediction = mean_of_looks(self.model, earlier.prediction, later.prediction, edge)
        landmarks = self._placed(self.decoder.landmarks(prediction)[0], later.crop_from_picture)
        before = (*earlier.earlier_framings, earlier.framing)
        return later._replace(prediction=prediction, landmarks=landmarks, earlier_framings=before)

    @torch.inference_mode()
    def _decoded(
        self,
        picture: np.ndarray,  # (H, W, 3), uint8 RGB
        looks: Sequence[Look],
    ) -> list[FaceReconstruction]:
        faces: list[FaceReconstruction] = []
        for part in chunks(looks, BATCH_SIZE):
            points = self._points(Prediction.joined([look.prediction for look in part]))
            faces += [self._one(picture, look, points, index) for index, look in enumerate(part)]
        return faces

    def _crop(self, picture: np.ndarray, matrix: Tensor) -> Tensor:  # (4, 4)
        """One network input, (1, 3, 256, 256), RGB in [0, 1]; large faces are averaged down first
        as a decoder of JPEG would."""
        reduced, picture_from_reduced = reduced_picture(picture, matrix)
        tensor = torch.from_numpy(reduced).permute(2, 0, 1)[None].to(self.device)
        return warp_to_crop(tensor, (matrix @ picture_from_reduced)[None].float().to(self.device))

    def _one(
        self,
        picture: np.ndarray,
        look: Look,
        points: PredictedPoints,
        index: int,  # of the look's points
    ) -> FaceReconstruction:
        matrix = look.crop_from_picture
        position_map = points.position_map[index]  # (3, H, W)
        side = position_map.shape[-1]
        flat = self._placed(position_map.flatten(1).T, matrix)
        parameters, uncertainty = look.prediction.parameters, look.prediction.uncertainty
        shape_params = exp_params = None
        if parameters is not None:
            own = split_parameters(parameters, self.model.num_shape)
            shape_params, exp_params = (c[0].cpu().numpy() for c in own[1:])
        vertices = self._placed(points.mesh[index], matrix)
        return FaceReconstruction(
            face=self.face,
            picture=picture,
            framing=look.framing,
            confidence=None,
            uncertainty=None if uncertainty is None else float(uncertainty),
            vertices=vertices,
            triangles=self.decoder.triangles.cpu().numpy(),
            texture_coords=self.decoder.texture_coords.cpu().numpy(),
            landmarks=self._placed(points.landmarks[index], matrix),
            position_map=np.ascontiguousarray(flat.T.reshape(3, side, side)),
            pose=pose_of(vertices, points.in_model_frame[index].cpu().numpy()),
            shape_params=shape_params,
            exp_params=exp_params,
            earlier_framings=look.earlier_framings,
        )

    def _placed(
        self,
        points: Tensor,  # (K, 3), crop px
        crop_from_picture: Tensor,  # (4, 4), float64
    ) -> np.ndarray:
        """Points in px of the picture, (K, 3), float32."""
        picture_from_crop = camera.invert_affine(crop_from_picture)
        there = camera.transform_points(picture_from_crop, points.double().cpu())
        return camera.convert_origin(there, self.pixel_origin, "zero_based").float().numpy()

    def _points(self, prediction: Prediction) -> PredictedPoints:
        decoder, mesh = self.decoder, self.decoder.mesh(prediction)
        at_vertices = decoder.has_vertices  # then they are equal to the last bit
        return PredictedPoints(
            mesh,
            mesh[:, decoder.landmark_index] if at_vertices else decoder.landmarks(prediction),
            decoder.position_map(prediction, mesh),
            decoder.model_points(prediction),
        )


def pose_of(
    vertices: np.ndarray,  # (N, 3), picture px
    model_points: np.ndarray,  # (N, 3), the same in the model frame
) -> HeadPose:
    """The rigid pose nearest to a mesh: a predicted camera may shear, a head does not."""
    up = torch.from_numpy(vertices * [1.0, -1.0, 1.0])[None]
    found = umeyama(torch.from_numpy(model_points.astype(np.float64))[None], up.double())
    return HeadPose(float(found.scale[0]), found.rotation[0].numpy(), found.translation[0].numpy())


def reduced_picture(
    picture: np.ndarray,  # (H, W, 3), uint8 RGB
    crop_from_picture: Tensor,  # (4, 4), float64
) -> tuple[np.ndarray, Tensor]:
    """The part of a picture that the crop shows, averaged down by 2, 4, ... while it still has the
    crop's resolution, and (4, 4), float64, px of that -> px of the picture."""
    height, width = picture.shape[:2]
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=torch.float64)
    there = camera.transform_points(
        camera.invert_affine(crop_from_picture), (CROP_SIZE - 1) * corners
    )[:, :2].numpy()
    side = float(np.linalg.norm(there[1] - there[0]))
    step = 1
    while side / (2 * step) >= CROP_SIZE:
        step *= 2
    # Whole blocks of `step` px around the crop; beyond the picture it is black.
    low = np.clip(np.floor(there.min(0) / step - 1) * step, 0, [width - 1, height - 1])
    high = np.clip(np.ceil(there.max(0) / step + 1) * step, low + 1, [width, height])
    (left, top), (right, bottom) = low.astype(int), high.astype(int)
    part = picture[top:bottom, left:right]
    if step > 1:
        rows, columns = -(-part.shape[0] // step), -(-part.shape[1] // step)
        padded = cv2.copyMakeBorder(
            part,
            0,
            rows * step - part.shape[0],
            0,
            columns * step - part.shape[1],
            cv2.BORDER_REPLICATE,
        )
        part = cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA)
    picture_from_part = torch.eye(4, dtype=torch.float64)
    picture_from_part[0, 0] = picture_from_part[1, 1] = step
    picture_from_part[0, 3], picture_from_part[1, 3] = left + (step - 1) / 2, top + (step - 1) / 2
    return np.ascontiguousarray(part), picture_from_part
