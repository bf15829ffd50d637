"""Losses on the parameters of a face model and on the points they place.

Sources: 3DDFA (Zhu et al., CVPR 2016; its released losses) for PDC, VDC and WPDC; Wing (Feng et
al., CVPR 2018); 2DASL section 3 for the landmark consistency.

Letters: B batch, K points, S shape and E expression coefficients, C = S + E, P = 12 + C.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from prnet.checks import require_choice
from prnet.faces.face import Face
from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.pose_parameters import (
    DEPTH,
    NUM_POSE,
    FitParameters,
    posed_vertices,
    split_parameters,
)
from prnet.losses.loss import Loss, require_a_term, root
from prnet.sample import FaceSample, Prediction

Normalizer = Literal["max", "sum"]
VdcUnit = Literal["3ddfa", "crop"]
# 3DDFA's mean scale, px of its 120 px input per micrometre, and ours: px of the 256 crop. It holds
# for every face in micrometres.
SCALE_3DDFA = 5.7339936e-4
MEAN_SCALE = SCALE_3DDFA * 256 / 120
# Of a squared distance in px of the 256 crop: the mean of x, y and z in px of 3DDFA's 120 px input,
# as released, 13.65 times less and what its learning rates are for; or the distance as it is.
VDC_UNITS = {"3ddfa": (120 / 256) ** 2 / 3, "crop": 1.0}
WEIGHT_EPS = 1e-6
# Spreads the start of the random vertices of successive batches over the whole mesh.
SPREAD = 7919.0


def wpdc_weights(
    difference: Tensor,  # (B, P), predicted - true, not whitened
    shape: Tensor,  # (B, K, 3), the true face at the points, model frame
    basis: Tensor,  # (C, K, 3), at the points
    *,
    normalizer: Normalizer = "max",
) -> Tensor:
    """How far each wrong parameter alone moves the points, (B, P), without a gradient.

    w_i = |H(p with its i-th entry predicted) - H(p)| over all points, which is |d_i| times the
    norm of column j of the face for an entry of f R, |d_i| sqrt(K) for a translation, and |d_i| f
    |basis_i| for a coefficient; f is not the sample's but `MEAN_SCALE`, as released. Then 1e-6 is
    added and every sample divided by its largest weight ("max", as released) or their sum ("sum",
    as printed). t_z weighs 0.
    """
    difference = difference.detach()
    columns = shape.detach().square().sum(1).sqrt()  # (B, 3)
    steps = columns.new_full((len(columns), 1), math.sqrt(shape.shape[1]))
    pose = torch.cat([columns, steps], 1).repeat(1, 3)  # (B, 12)
    coefficients = MEAN_SCALE * basis.square().sum((1, 2)).sqrt()  # (C,)
    effect = torch.cat([pose, coefficients.expand(len(pose), -1)], 1)
    weights = difference.abs() * effect + WEIGHT_EPS
    observed = torch.ones_like(weights[0])
    observed[DEPTH].fill_(0)
    weights = weights * observed
    total = weights.amax(1, keepdim=True) if normalizer == "max" else weights.sum(1, keepdim=True)
    return weights / total


def wing(
    difference: Tensor,
    *,
    width: float = 10.0,
    curvature: float = 2.0,
) -> Tensor:
    """w ln(1 + |x| / e) below w, |x| - c above it, elementwise, c such that both meet at w.

    The poster of Mobile-FRNet names the loss and neither width nor curvature: 10 and 2, in px of
    the 256 crop, are our choice.
    """
    distance = difference.abs()
    constant = width - width * math.log1p(width / curvature)
    small = width * torch.log1p(distance / curvature)
    return torch.where(distance < width, small, distance - constant)


def landmark_consistency(
    offset: Tensor,  # (B, K, 2 or 3), predicted - true
    weights: Tensor | None = None,  # (K,) or (B, K), >= 0; None: 1
) -> Tensor:
    """Sum over the landmarks of v |x - y|, (B,): 2DASL eqs. 4 and 5; the subgradient 0 at 0."""
    distance = root(offset.square().sum(-1))
    return (distance if weights is None else distance * weights).sum(-1)


class ParameterLoss(Loss):
    """Any sum of PDC, WPDC, VDC, Wing and landmark consistency, averaged over the images with a
    fit.

    PDC and WPDC compare whitened parameters; the others points in px of the 256 crop (VDC in its
    unit), with the true t_z for the predicted. Points are the 68 landmarks and `num_random` other
    vertices, which change from batch to batch: a run of consecutive entries of a fixed shuffle,
    beginning where the batch itself says, so that a resumed run draws the same.
    """

    targets = frozenset({"fit"})
    needs = frozenset({"parameters"})

    def __init__(
        self,
        *,
        num_shape: int = 40,
        num_exp: int = 10,
        pdc: float = 0.0,
        wpdc: float = 0.0,
        vdc: float = 0.0,
        wing: float = 0.0,
        landmarks_2d: float = 0.0,
        landmarks_3d: float = 0.0,
        num_random: int = 132,
        normalizer: Normalizer = "max",
        vdc_unit: VdcUnit = "3ddfa",
        wing_width: float = 10.0,
        wing_curvature: float = 2.0,
    ) -> None:
        """A term of coefficient 0 is left out.

        - `num_shape`, `num_exp`: the network's.
        - `pdc`, ..., `landmarks_3d`: the coefficients.
        - `num_random`: vertices beside the 68 landmarks.
        - `normalizer`: see `wpdc_weights`.
        - `vdc_unit`: of the squared distances; see `VDC_UNITS`.
        - `wing_width`, `wing_curvature`: px; see `wing`.

        Raises:
            ValueError: a coefficient is negative or not finite, all are 0, or an option none
                of its choices.
        """
        super().__init__()
        self.coefficients = {
            "pdc": pdc,
            "wpdc": wpdc,
            "vdc": vdc,
            "wing": wing,
            "landmarks_2d": landmarks_2d,
            "landmarks_3d": landmarks_3d,
        }
        require_a_term(self.coefficients)
        require_choice("normalizer", normalizer, get_args(Normalizer))
        require_choice("vdc_unit", vdc_unit, VDC_UNITS)
        self.num_shape, self.num_exp = num_shape, num_exp
        self.num_random = num_random
        self.normalizer = normalizer
        self.vdc_unit = VDC_UNITS[vdc_unit]
        self.wing_shape = {"width": wing_width, "curvature": wing_curvature}
        self.model: MorphableModel | None = None
        self.num_parameters = NUM_POSE + num_shape + num_exp
        self.register_buffer("parameter_std", torch.zeros(self.num_parameters), persistent=False)

    def set_face(self, face: Face) -> None:
        """The face whose parameters are compared.

        Raises:
            ValueError: it has fewer bases than coefficients are compared.
        """
        self.model = face.morphable_model.truncated(self.num_shape, self.num_exp)
        self.fit_parameters = FitParameters(self.model, face.mirror_index)
        count = self.model.num_vertices
        shuffle = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        device = face.landmark_index.device
        self.register_buffer("shuffle", shuffle.to(device), persistent=False)
        self.register_buffer("landmark_index", face.landmark_index, persistent=False)

    def set_statistics(self, _mean: Tensor, std: Tensor) -> None:  # (P,), (P,)
        self.parameter_std.copy_(std)

    def forward(self, prediction: Prediction, sample: FaceSample) -> dict[str, Tensor]:
        """Every term with its coefficient, by its name in `coefficients`.

        Raises:
            ValueError: the network predicts no parameters, or there is no face yet.
        """
        if prediction.parameters is None:
            raise ValueError("loss: the network predicts no parameters; choose a loss on maps")
        if self.model is None:
            raise ValueError("loss: it has no face yet; call set_face")
        true = self.fit_parameters(sample.fit)
        index = torch.cat([self.landmark_index, self.random_vertices(true, sample.has_fit)])
        share = 1.0  # of the images that teach
        if sample.has_fit is not None:
            # An image without a fit is compared with itself: it adds exactly nothing.
            itself = prediction.parameters.detach()
            true = torch.where(sample.has_fit[:, None], true, itself)
            share = sample.has_fit.sum().clamp(min=1) / len(true)
        # The true t_z for the predicted: what is not observed has no gradient.
        unobserved = torch.arange(true.shape[1], device=true.device) == DEPTH
        predicted = torch.where(unobserved, true, prediction.parameters)
        model = self.model.at_vertices(index)
        difference = predicted - true
        offset = posed_vertices(model, predicted) - posed_vertices(model, true)  # (B, K, 3), px
        at_landmarks = offset[:, : len(self.landmark_index)]
        terms = {
            "pdc": lambda: (difference / self.parameter_std).square().mean(),
            "wpdc": lambda: self._wpdc(difference, true, model),
            "vdc": lambda: self.vdc_unit * offset.square().sum(-1).mean(),
            "wing": lambda: wing(offset, **self.wing_shape).mean(),
            "landmarks_2d": lambda: landmark_consistency(at_landmarks[..., :2]).mean(),
            "landmarks_3d": lambda: landmark_consistency(at_landmarks).mean(),
        }
        return {
            name: value * terms[name]() / share
            for name, value in self.coefficients.items()
            if value
        }

    def _wpdc(self, difference: Tensor, true: Tensor, model: MorphableModel) -> Tensor:
        """The weighted squares d^T W d of whitened errors, weighed at the points of `model`: their
        mean over P, as released, or, where the weights add up to 1 already, their sum, as printed
        (2DASL section 3.3)."""
        _, *coefficients = split_parameters(true, self.num_shape)
        shape = model(*coefficients)
        weights = wpdc_weights(difference, shape, model.basis, normalizer=self.normalizer)
        squares = weights * (difference / self.parameter_std).square()  # (B, P)
        return squares.mean() if self.normalizer == "max" else squares.sum(1).mean()

    def random_vertices(
        self,
        parameters: Tensor,  # (B, P)
        has_fit: Tensor | None = None,  # (B,), bool: whose parameters are known; None: all
    ) -> Tensor:
        """Indices of vertices, a function of the batch alone, (num_random,)."""
        count = len(self.shuffle)
        pose = parameters[:, :NUM_POSE].abs().double()
        if has_fit is not None:
            pose = torch.where(has_fit[:, None], pose, 0.0)
        start = (pose.sum() * SPREAD).long()
        steps = torch.arange(self.num_random, device=parameters.device)
        return self.shuffle[(start + steps) % count]
