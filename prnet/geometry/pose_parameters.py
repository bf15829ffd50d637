"""Pose and coefficients in one vector, as parameter regressors predict them.

p = [the rows of (f R | t), S shape coefficients, E expression coefficients]: 62 numbers in 3DDFA,
12 + 40 + 10. The pose carries its scale f and maps the model frame to the y-up plane of the crop,
so crop = F (f R V + t) with F = diag(1, -1, 1), px of the 256 crop. Depth is not observable: t_z
(`DEPTH`) is no target of any loss, and a prediction's is set so that its mesh starts at z = 0.

Letters: B batch, N vertices, S shape and E expression coefficients, C = S + E, P = 12 + C.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from prnet.geometry.align import nearest_rotation
from prnet.geometry.camera import flip_y
from prnet.geometry.morphable_model import MorphableModel
from prnet.sample import Pose, PosedFit

NUM_POSE = 12
DEPTH = 11  # t_z
FLIP = (1.0, -1.0, 1.0)


class FaceParameters(NamedTuple):
    """The vector taken apart."""

    pose: Tensor  # (B, 3, 4), model frame -> y-up plane of the crop, px
    shape_params: Tensor  # (B, S)
    exp_params: Tensor  # (B, E)

    @property
    def crop_from_model(self) -> Tensor:
        """Model frame -> crop px, (B, 4, 4)."""
        return crop_from_model(self.pose)


def crop_from_model(
    camera: Tensor,  # (B, 3, 4), model frame -> y-up plane of the crop, px
) -> Tensor:
    """Model frame -> crop px, (B, 4, 4)."""
    matrix = camera.new_zeros(camera.shape[0], 4, 4)
    matrix[:, :3] = flip_y(camera, 1)
    matrix[:, 3, 3].fill_(1)
    return matrix


def split_parameters(
    parameters: Tensor,  # (B, P)
    num_shape: int,
) -> FaceParameters:
    """A vector as pose, shape and expression."""
    pose, shape_params, exp_params = parameters.tensor_split([NUM_POSE, NUM_POSE + num_shape], 1)
    return FaceParameters(pose.unflatten(1, (3, 4)), shape_params, exp_params)


def rigid_pose(
    camera: Tensor,  # (B, 3, 4), model frame -> y-up plane of the crop, px
) -> Pose:
    """The scaled rotation nearest to an affine camera."""
    rotation = nearest_rotation(camera[..., :3])
    scale = (rotation * camera[..., :3]).sum((1, 2)) / 3
    return Pose(scale, rotation, camera[..., 3])


def posed_vertices(
    model: MorphableModel,  # with S and E bases
    parameters: Tensor,  # (B, P)
) -> Tensor:
    """The vertices in the y-up plane of the crop, px, (B, N, 3)."""
    pose, *coefficients = split_parameters(parameters, model.num_shape)
    return _posed(pose, model(*coefficients))


def crop_points(
    model: MorphableModel,  # with S and E bases
    parameters: Tensor,  # (B, P)
) -> Tensor:
    """The vertices in crop px, (B, N, 3)."""
    pose, *coefficients = split_parameters(parameters, model.num_shape)
    return _posed(flip_y(pose, 1), model(*coefficients))


def _posed(pose: Tensor, vertices: Tensor) -> Tensor:  # (B, 3, 4), (B, N, 3)
    return torch.baddbmm(pose[:, None, :, 3], vertices, pose[:, :, :3].transpose(1, 2))


def mirrored_vertices(
    model: MorphableModel,
    mirror_index: Tensor | None,  # (N,), where the face knows it
) -> Tensor:
    """The vertex on the other side of each, (N,), CPU; where it is not known the one nearest to the
    mirror image of the mean."""
    if mirror_index is not None:
        return mirror_index.cpu()
    mean = model.mean.double().cpu().numpy()
    from scipy.spatial import cKDTree

    return torch.from_numpy(cKDTree(mean * [-1, 1, 1]).query(mean)[1])


class MirrorImage(nn.Module):
    """Coefficients of a face's mirror image, c' = A c + b, by least squares over all vertices.

    The mirror image of vertex n is vertex `mirror_index[n]` with x negated. No basis is quite
    symmetric, so c' does not quite reproduce it; `residual` is the root mean square distance that
    the bases (and the mean) leave, model units, for coefficients of 0.

    Buffers, not stored: `matrix` (C, C), `offset` (C,).
    """

    def __init__(
        self,
        model: MorphableModel,
        mirror_index: Tensor | None,  # (N,); None: see `mirrored_vertices`
    ) -> None:
        super().__init__()
        sign = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
        mean, basis = model.mean.double().cpu(), model.basis.double().cpu()
        index = mirrored_vertices(model, mirror_index)
        rows = basis.flatten(1)  # (C, 3 N)
        mirrored_rows = (basis[:, index] * sign).flatten(1)
        change = ((mean[index] * sign) - mean).flatten()  # of the mean
        inverse = torch.linalg.pinv(rows @ rows.T, hermitian=True)
        matrix, offset = inverse @ (rows @ mirrored_rows.T), inverse @ (rows @ change)
        left = (change - offset @ rows).unflatten(0, (-1, 3))
        self.residual = float(left.square().sum(1).mean().sqrt())
        device, dtype = model.mean.device, model.mean.dtype
        self.register_buffer("matrix", matrix.to(device, dtype), persistent=False)
        self.register_buffer("offset", offset.to(device, dtype), persistent=False)

    def forward(self, coefficients: Tensor) -> Tensor:  # (B, C)
        """(B, C)."""
        return torch.addmm(self.offset, coefficients, self.matrix.T)


class FitParameters(nn.Module):
    """Fits as the vectors that a network of `num_shape` + `num_exp` coefficients should predict.

    Of longer fits the leading coefficients are taken. A mirrored sample's are those of the mirror
    image (`MirrorImage`), and its pose is a rotation again.
    """

    def __init__(self, model: MorphableModel, mirror_index: Tensor | None) -> None:
        """`model` has the bases of the network alone (`MorphableModel.truncated`)."""
        super().__init__()
        self.num_shape, self.num_exp = model.num_shape, model.num_exp
        self.mirror_image = MirrorImage(model, mirror_index)

    def forward(self, fit: PosedFit) -> Tensor:
        """(B, P).

        Raises:
            ValueError: the fits have fewer coefficients.
        """
        for name, params, count in (
            ("shape", fit.shape_params, self.num_shape),
            ("expression", fit.exp_params, self.num_exp),
        ):
            if params.shape[1] < count:
                raise ValueError(
                    f"fits with {params.shape[1]} {name} coefficients, the network predicts {count}"
                )
        coefficients = torch.cat(
            [fit.shape_params[:, : self.num_shape], fit.exp_params[:, : self.num_exp]], 1
        )
        mirrored = fit.mirrored[:, None]
        coefficients = torch.where(mirrored, self.mirror_image(coefficients), coefficients)
        pose = flip_y(fit.crop_from_model[:, :3], 1)
        # The mirror of x, X = diag(-1, 1, 1), moves from the pose to the face: M V = (M X) (X V).
        sign = torch.where(mirrored, -1.0, 1.0)
        pose = torch.cat([pose[..., :1] * sign[..., None], pose[..., 1:]], -1)
        return torch.cat([pose.flatten(1), coefficients], 1)
