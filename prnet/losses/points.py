"""The distance of predicted points from the true ones. Letters: B batch, K points."""

import torch
from torch import Tensor
from torch.nn import functional

from prnet.checks import require_count
from prnet.faces.face import Face
from prnet.faces.spread_points import NUM_LANDMARKS, spread_points
from prnet.geometry.pose_parameters import mirrored_vertices
from prnet.losses.loss import Loss, require_coefficients, root
from prnet.sample import FaceSample, Prediction

# Landmarks whose distance is an expression: upper and lower lids, lips, the corners of the mouth,
# brows and eyes.
LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
LIPS = ((61, 67), (62, 66), (63, 65), (51, 57), (50, 58), (52, 56), (48, 54))
BROWS = ((19, 37), (24, 44), (21, 39), (22, 42), (17, 36), (26, 45))
NEAR = tuple(zip(*LIDS, *LIPS, *BROWS, strict=True))
# Errors of these vectors, % of the box: squared up to the second figure; at the first the loss is
# as steep as that of a distance.
STEEP_AS_DISTANCE, SQUARED_TO = 2.0, 8.0


class PointsLoss(Loss):
    """Mean Euclidean distance of landmarks and of the other points, half of each, in % of the
    landmarks' box: what the NME measures, on the whole face. The vectors between landmarks whose
    distance is an expression count besides, by Huber's loss: to the NME a closed eye is next to
    nothing, and since few eyes are closed, a loss of plain distances is lowest where all are open.

    Depth counts for `depth` of itself: one picture says least of it.
    """

    targets = frozenset({"fit"})
    needs = frozenset({"points"})

    def __init__(
        self, *, pairs: int = 150, depth: float = 0.5, near: float = 1.5, lids: float = 2.0
    ) -> None:
        """
        - `pairs`: of vertices beside the landmarks, the network's.
        - `depth`: weight of a distance in depth.
        - `near`: weight of the error of the vectors between near landmarks.
        - `lids`: factor of those between the lids of an eye, the shortest.

        Raises:
            ValueError: no pairs, or a negative weight.
        """
        super().__init__()
        require_coefficients({"depth": depth, "near": near, "lids": lids})
        require_count("loss.pairs", pairs)
        self.pairs = pairs
        self.depth = depth
        self.near = near
        self.register_buffer("near_index", torch.tensor(NEAR), persistent=False)  # (2, pairs)
        factors = [lids] * len(LIDS) + [1.0] * (len(LIPS) + len(BROWS))
        self.register_buffer("factors", torch.tensor(factors), persistent=False)

    def set_face(self, face: Face) -> None:
        index = spread_points(face, self.pairs)
        other_side = mirrored_vertices(face.morphable_model, face.mirror_index)
        mirrored = other_side.to(index.device)[index]
        self.model = face.morphable_model.at_vertices(torch.cat([index, mirrored]))

    def true_points(self, sample: FaceSample) -> Tensor:
        """(B, K, 3), crop px; a mirrored sample shows each vertex where its mirror image was."""
        fit = sample.fit
        as_they_are, mirrored = self.model(fit.shape_params, fit.exp_params).chunk(2, 1)
        vertices = torch.where(fit.mirrored[:, None, None], mirrored, as_they_are)
        matrix = fit.crop_from_model
        return torch.baddbmm(matrix[:, None, :3, 3], vertices, matrix[:, :3, :3].transpose(1, 2))

    def forward(self, prediction: Prediction, sample: FaceSample) -> dict[str, Tensor]:
        """{"landmarks": scalar, "vertices": scalar, "near": scalar}, each with its weight."""
        true = self.true_points(sample)
        offset = prediction.points - true
        # What is not observed is no target: the depth of the whole face.
        depth = offset[..., 2:] - offset[..., 2:].mean(1, keepdim=True)
        offset = torch.cat([offset[..., :2], self.depth * depth], -1)
        low, high = true[:, :NUM_LANDMARKS, :2].aminmax(dim=1)
        side = (high - low).prod(1).sqrt()  # (B,)
        upper, lower = self.near_index
        vector = offset[:, upper] - offset[:, lower]
        percent, apart = (
            100 * root(error.square().sum(-1)) / side[:, None] for error in (offset, vector)
        )
        near = functional.huber_loss(
            apart, torch.zeros_like(apart), reduction="none", delta=SQUARED_TO
        )
        return {
            "landmarks": percent[:, :NUM_LANDMARKS].mean() / 2,
            "vertices": percent[:, NUM_LANDMARKS:].mean() / 2,
            "near": self.near * (self.factors * near / STEEP_AS_DISTANCE).mean(),
        }
