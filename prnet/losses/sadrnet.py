"""SADRNet's six losses (section III-D, eqs. 19-24). Letters: B batch, H W map side, h w attention.

Edges and triangles are those between neighbouring texels of the face mask; the triangles are
`uv.grid_triangles`: every square of four texels is split from its upper right to its lower left.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from prnet.checks import require_choice
from prnet.faces.face import Face
from prnet.losses.loss import Loss, lengths, require_a_term
from prnet.losses.prn import PRNLoss, Reduction, weighted_norm
from prnet.sample import FaceSample, Prediction

Edges = Literal["neighbours", "released"]

# What a term compares: a field of `Prediction` with one of `FaceSample`.
COMPARED = {
    "geometry": ("position_map", "position_map"),
    "deformation": ("shape_map", "shape_map"),
    "pose_dependent": ("pose_dependent_map", "position_map"),
    "attention": ("attention_logits", "attention"),
    "edge": ("shape_map", "shape_map"),
    "normal": ("shape_map", "shape_map"),
}
# From a texel to the other end of an edge: rows down, columns to the right.
RIGHT, BELOW, BELOW_RIGHT = (0, 1), (1, 0), (1, 1)


def edge_length_loss(
    prediction: Tensor,  # (B, 3, H, W), a shape map
    target: Tensor,  # (B, 3, H, W)
    face_mask: Tensor,  # (H, W), bool
    *,
    edges: Edges = "neighbours",
    reduction: Reduction = "mean",
) -> Tensor:
    """Sum, or mean over the edges, of | |E_ij| - |E'_ij| |, (B,), in the maps' unit: eqs. 20-21.

    "neighbours" are all pairs of texels of the face next to each other in a row or a column.
    "released" has the code's list: the pairs of a row, and where a pair of a column was meant the
    diagonal to the lower right, whose far end may lie off the face.

    Differentiable; for an edge of length zero the subgradient 0 is taken.
    """
    meant = {"neighbours": (RIGHT, BELOW), "released": (RIGHT, BELOW_RIGHT)}[edges]
    total = prediction.new_zeros(len(prediction))
    count = 0
    for step in meant:
        # The released list tests the texel below and then walks on to the right of it.
        mask = _at_both_ends(face_mask, BELOW if step == BELOW_RIGHT else step)
        found, true = (lengths(_along(shape, step)) for shape in (prediction, target))
        mask = mask[: found.shape[1], : found.shape[2]]
        total = total + ((found - true).abs() * mask).sum((1, 2))
        count = count + mask.sum()
    return total if reduction == "sum" else total / count.clamp(min=1)


def normal_vector_loss(
    prediction: Tensor,  # (B, 3, H, W), a shape map
    target: Tensor,  # (B, 3, H, W)
    face_mask: Tensor,  # (H, W), bool
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """|<e, n'>| over the three unit edges e of every triangle and its true normal n', (B,): eq. 23.

    "sum" is eq. 23; "mean" divides it by the number of edges, 3 a triangle, as the released code.
    Eq. 22 prints n without a hat; of the prediction's own normal every term would be 0, so it is
    the truth's. Triangles without an area in the truth, and edges of length zero, add 0.
    """
    right, below, diagonal = (
        edge / _nonzero(lengths(edge))[:, None] for edge in _square_edges(prediction)
    )
    true_right, true_below, true_diagonal = _square_edges(target)
    mask = face_mask.to(prediction.dtype)
    shared = mask[:-1, 1:] * mask[1:, :-1]  # both ends of the diagonal
    total = prediction.new_zeros(len(prediction))
    # Upper left: texel, right, below. Lower right: upper right, below it, lower left.
    for columns, rows, corner in (
        (slice(None, -1), slice(None, -1), mask[:-1, :-1]),
        (slice(1, None), slice(1, None), mask[1:, 1:]),
    ):
        normal = torch.linalg.cross(true_diagonal, true_below[..., columns], dim=1)
        normal = normal / _nonzero(lengths(normal))[:, None]
        cosines = [
            (edge * normal).sum(1).abs()
            for edge in (right[:, :, rows], below[..., columns], diagonal)
        ]
        total = total + (sum(cosines) * (corner * shared)).sum((1, 2))
    if reduction == "sum":
        return total
    triangles = (shared * (mask[:-1, :-1] + mask[1:, 1:])).sum()
    return total / (3 * triangles).clamp(min=1)


class SADRNetLoss(Loss):
    """L = 0.1 L_G + 0.5 L_D + L_P + 0.05 L_A + L_E + 0.1 L_V (eq. 24), averaged over the batch.

    Units: the coefficients belong to positions in units of `coordinate_scale` px and shapes in
    units of `shape_unit` model units, the network's own. L_D compares S with its truth: the mean
    face drops out of the difference.

    Reductions: "mean" is the released code's, for which the coefficients were tuned, and the
    "weighted average" of the paper's text: L_G, L_D and L_P over the weighted texels (weights up to
    16 stay in, unlike in `weighted_norm`), L_A over pixels, L_E over edges, L_V over edges of
    triangles. "sum" is the equations as printed. With two edges, two triangles and 1/43 pixels of
    attention a texel, "sum" weighs L_E twice, L_V six times and L_A 1/43 as much against L_P.
    """

    def __init__(
        self,
        *,
        geometry: float = 0.1,
        deformation: float = 0.5,
        pose_dependent: float = 1.0,
        attention: float = 0.05,
        edge: float = 1.0,
        normal: float = 0.1,
        weights: Sequence[float] = (16, 12, 3, 0),
        weight_picture: Path | str | None = None,
        edges: Edges = "neighbours",
        reduction: Reduction = "mean",
        coordinate_scale: float = 280.0,
        shape_unit: float = 1 / 1.5e-5,
    ) -> None:
        """The coefficients of eq. 24 come first; a term of coefficient 0 is left out.

        - `weights`: of landmarks : eyes, nose and mouth : rest of the face : neck and all else.
        - `weight_picture`: replaces them by PRNet's uv_weight_mask.png as the released code reads
          it: its 4 becomes 12, its halos stay.
        - `edges`: see `edge_length_loss`.
        - `reduction`, `coordinate_scale` (px), `shape_unit` (model units): see above.

        Raises:
            ValueError: a coefficient is negative or not finite, all are 0, no such edges; weights
                and reduction as `PRNLoss`.
        """
        super().__init__()
        self.coefficients = {
            "geometry": geometry,
            "deformation": deformation,
            "pose_dependent": pose_dependent,
            "attention": attention,
            "edge": edge,
            "normal": normal,
        }
        require_a_term(self.coefficients)
        require_choice("edges", edges, get_args(Edges))
        self.weighted = PRNLoss(weights=weights, weight_picture=weight_picture, reduction=reduction)
        compared = [COMPARED[name] for name, value in self.coefficients.items() if value > 0]
        self.needs, self.targets = (frozenset(names) for names in zip(*compared, strict=True))
        self.edges = edges
        self.reduction = reduction
        self.coordinate_scale = coordinate_scale
        self.shape_unit = shape_unit
        self.register_buffer("face_mask", None, persistent=False)

    def set_face(self, face: Face) -> None:
        """Make the weight mask of the face's UV layout, as `PRNLoss.set_face`."""
        self.weighted.set_face(face)
        mask = self.weighted.weight_mask
        if self.weighted.weight_picture is not None:
            for value, read_as in ((255 / 16, 16.0), (4.0, 12.0)):
                mask = torch.where(mask == value, read_as, mask)
        self.weight_mask = mask
        self.weighs_outside = self.weighted.weighs_outside
        self.face_mask = face.uv.face_mask.clone()

    def forward(self, prediction: Prediction, sample: FaceSample) -> dict[str, Tensor]:
        """Every term with its coefficient, by its name in `coefficients`.

        Raises:
            ValueError: a term needs what the network does not predict or the sample lacks, or the
                attention of one has another resolution than that of the other.
        """
        losses = {}
        for name, coefficient in self.coefficients.items():
            if coefficient > 0:
                field, of_sample = COMPARED[name]
                predicted = _given(prediction, field, "network")
                term = self._term(name, predicted, _given(sample, of_sample, "sample"))
                losses[name] = coefficient * term.mean()
        return losses

    def _term(self, name: str, predicted: Tensor, true: Tensor) -> Tensor:
        """One of the six, of the two fields that `COMPARED` has for it, (B,)."""
        if name == "attention":
            return self._cross_entropy(predicted, true)
        if name in ("geometry", "pose_dependent"):
            return self._weighted(predicted, true, self.coordinate_scale)
        predicted, true = predicted / self.shape_unit, true / self.shape_unit
        if name == "deformation":
            return self._weighted(predicted, true, 1.0)
        mask, reduction = self.face_mask, self.reduction
        if name == "edge":
            return edge_length_loss(predicted, true, mask, edges=self.edges, reduction=reduction)
        return normal_vector_loss(predicted, true, mask, reduction=reduction)

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:  # (B, h, w) each
        """L_A, (B,)."""
        if logits.shape != target.shape:
            raise ValueError(
                f"attention: the network predicts {tuple(logits.shape)}, the sample has "
                f"{tuple(target.shape)}; make the target at the network's resolution"
            )
        entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return entropy.sum((1, 2)) if self.reduction == "sum" else entropy.mean((1, 2))

    def _weighted(self, prediction: Tensor, target: Tensor, unit: float) -> Tensor:
        """Eq. 19 for maps (B, 3, H, W), (B,)."""
        total = weighted_norm(prediction, target, self.weight_mask, reduction="sum") / unit
        return total if self.reduction == "sum" else total / (self.weight_mask > 0).sum()


def _given(owner: Prediction | FaceSample, name: str, description: str) -> Tensor:
    value = getattr(owner, name)
    if value is None:
        raise ValueError(
            f"loss: the {description} has no {name}; set the coefficients of the terms that need "
            "it to 0"
        )
    return value


def _along(shape: Tensor, step: tuple[int, int]) -> Tensor:  # (B, 3, H, W)
    """From every texel to the one a step further, (B, 3, H - down, W - right)."""
    down, right = step
    height, width = shape.shape[2:]
    return shape[..., down:, right:] - shape[..., : height - down, : width - right]


def _at_both_ends(mask: Tensor, step: tuple[int, int]) -> Tensor:  # (H, W)
    down, right = step
    height, width = mask.shape
    return mask[down:, right:] & mask[: height - down, : width - right]


def _square_edges(shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (B, 3, H, W)
    """To the right (B, 3, H, W - 1), to below (B, 3, H - 1, W), and in every square of four texels
    from the upper right to the lower left, (B, 3, H - 1, W - 1)."""
    diagonal = shape[..., 1:, :-1] - shape[..., :-1, 1:]
    return _along(shape, RIGHT), _along(shape, BELOW), diagonal


def _nonzero(length: Tensor) -> Tensor:
    return torch.where(length > 0, length, 1)
