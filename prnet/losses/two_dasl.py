"""2DASL's losses: supervised by fits where there are any, by 2D landmarks and by itself everywhere.

Source: Tu et al., arXiv 1903.09359, sections 3.2 to 3.5.

Letters: B batch, M images with a fit, K points, P parameters.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from prnet.checks import require_choice
from prnet.faces.face import Face
from prnet.geometry.landmark_map import POINTS_18, points_18, visible_18
from prnet.geometry.pose_parameters import DEPTH, NUM_POSE, crop_points
from prnet.losses.critic import Critic, average_gradients, critic_loss, deception_loss
from prnet.losses.loss import Loss, require_coefficients
from prnet.losses.parameters import (
    Normalizer,
    ParameterLoss,
    VdcUnit,
    landmark_consistency,
)
from prnet.sample import FaceSample, Prediction

Supervision = Literal["wpdc", "vdc", "pdc"]
PointUnit = Literal["side", "px"]
STAGES = (1, 2, "both")
# What a coordinate of 1 is, in px of the 256 crop: the crop's side, or a px of the paper's input.
POINT_UNITS = {"side": 256.0, "px": 256 / 120}
# 4 : 2 : 1. Which points weigh what is only in a figure, the text says "central points": here the
# nose and the middle of the mouth 4, eyes and corners of the mouth 2, brows 1; the mean is 1, so
# that leaving the weights out changes the emphasis and not the size of the term.
RELATIVE_WEIGHTS = (1,) * 6 + (2,) * 6 + (4,) * 3 + (2, 4, 2)
POINT_WEIGHTS = tuple(
    weight * len(POINTS_18) / sum(RELATIVE_WEIGHTS) for weight in RELATIVE_WEIGHTS
)


class TwoDASLLoss(Loss):
    """L = L_3d + l1 L_2d-con + l2 L_3d-con + l3 L_cyc + l4 L_sc.

    - L_3d (`supervision`): `ParameterLoss` over the images with a fit.
    - L_2d-con (`landmarks_2d`): the 18 points predicted against those given, over all images.
    - L_3d-con (`landmarks_3d`): the 68 in 3D of the first pass against those of the cycle's.
    - L_cyc (`cycle`): L_2d-con of the cycle's points.
    - L_sc (`self_critic`): the regressor's part of the self-critic, over the images without a fit;
      in a batch that has none, over all, so that fits alone train a critic too. The critic and
      its Adam live here: `after_step` teaches it, `training_state` is what a resumed run needs.

    Sums over points, means over images. The paper does not say in what unit its points are: in px
    the printed weight of the cycle and learning rate diverge within a step, so the default is the
    side of the crop (`point_unit`). Stage 2 is the vertex distance (VDC) over the images with a
    fit, and nothing else.
    """

    targets = frozenset({"fit", "landmarks"})

    def __init__(
        self,
        *,
        num_shape: int = 40,
        num_exp: int = 10,
        supervision: Supervision = "wpdc",
        landmarks_2d: float = 0.005,
        landmarks_3d: float = 0.005,
        cycle: float = 1.0,
        self_critic: float = 0.005,
        weighted_points: bool = True,
        point_unit: PointUnit = "side",
        stage: Literal[1, 2, "both"] = 1,
        stage_1_epochs: float = 2.0,
        normalizer: Normalizer = "max",
        vdc_unit: VdcUnit = "3ddfa",
        num_random: int = 132,
        critic_learning_rate: float = 1e-4,
    ) -> None:
        """The defaults are the paper's.

        - `num_shape`, `num_exp`: the network's.
        - `supervision`: what L_3d is in stage 1.
        - `landmarks_2d`, ..., `self_critic`: l1 to l4; a term of weight 0 is left out.
        - `weighted_points`: whether the 18 points weigh 4 : 2 : 1 instead of alike.
        - `point_unit`: of the points' coordinates.
        - `stage`: 1, the whole loss; 2, the vertex distance alone; "both", 1 for `stage_1_epochs`
          epochs, then 2.
        - `normalizer`, `vdc_unit`, `num_random`: see `ParameterLoss`.
        - `critic_learning_rate`: of the critic's Adam.

        Raises:
            ValueError: a weight is negative or not finite, or an option none of its choices.
        """
        super().__init__()
        require_choice("supervision", supervision, get_args(Supervision))
        require_choice("point_unit", point_unit, POINT_UNITS)
        require_choice("loss.stage", stage, STAGES)
        self.point_unit = POINT_UNITS[point_unit]
        self.weights = {
            "landmarks_2d": landmarks_2d,
            "landmarks_3d": landmarks_3d,
            "cycle": cycle,
            "self_critic": self_critic,
        }
        require_coefficients(self.weights)
        self.finetune_from = {1: math.inf, 2: 0.0, "both": stage_1_epochs}[stage]
        self.is_finetuning = self.finetune_from <= 0  # stage 2?
        common = {
            "num_shape": num_shape,
            "num_exp": num_exp,
            "num_random": num_random,
            "normalizer": normalizer,
            "vdc_unit": vdc_unit,
        }
        self.supervised = ParameterLoss(**{supervision: 1.0}, **common)
        self.finetuning = ParameterLoss(vdc=1.0, **common)
        self.num_parameters = num_parameters = NUM_POSE + num_shape + num_exp
        self.register_buffer("parameter_mean", torch.zeros(num_parameters), persistent=False)
        point_weights = torch.tensor(POINT_WEIGHTS if weighted_points else (1.0,) * 18)
        self.register_buffer("point_weights", point_weights, persistent=False)
        self.critic = self.critic_optimizer = None
        if self_critic > 0:
            self.critic = Critic(num_parameters)
            self.critic_optimizer = torch.optim.Adam(
                self.critic.parameters(), lr=critic_learning_rate, fused=True
            )

    @property
    def needs(self) -> frozenset[str]:
        """Parameters; in stage 1 with a term of the cycle, those of the second pass too."""
        of_cycle = self.weights["cycle"] > 0 or self.weights["landmarks_3d"] > 0
        cycle = {"cycle_parameters"} if of_cycle and self.finetune_from > 0 else set()
        return frozenset({"parameters"} | cycle)

    def set_face(self, face: Face) -> None:
        self.supervised.set_face(face)
        self.finetuning.set_face(face)
        self.landmark_model = self.supervised.model.at_vertices(face.landmark_index)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:  # (P,), (P,)
        self.supervised.set_statistics(mean, std)
        self.finetuning.set_statistics(mean, std)
        self.parameter_mean.copy_(mean)

    def start_step(self, epoch: float) -> None:
        self.is_finetuning = epoch >= self.finetune_from

    def forward(self, prediction: Prediction, sample: FaceSample) -> dict[str, Tensor]:
        """Every term with its weight; those of weight 0 are left out.

        Raises:
            ValueError: as `ParameterLoss`.
        """
        supervised = self.finetuning if self.is_finetuning else self.supervised
        values = supervised(prediction, sample)
        terms = [name for name, value in self.weights.items() if value > 0]
        if self.is_finetuning or not terms:
            return values
        points = self._points(prediction.parameters)
        if {"cycle", "landmarks_3d"} & set(terms):
            again = self._points(prediction.cycle_parameters)
        compute = {
            "landmarks_2d": lambda: self._consistency_2d(points, sample).mean(),
            "landmarks_3d": lambda: landmark_consistency(points - again).mean(),
            "cycle": lambda: self._consistency_2d(again, sample).mean(),
            "self_critic": lambda: self._deception(prediction, sample),
        }
        return values | {name: self.weights[name] * compute[name]() for name in terms}

    def after_step(self, prediction: Prediction, sample: FaceSample) -> dict[str, Tensor]:
        """Teach the critic on the step that the regressor has just made; what it says of it, to be
        logged."""
        if self.critic is None or self.is_finetuning:
            return {}
        latent = self.critic.encode(sample.image)
        fits = self.supervised.fit_parameters(sample.fit)
        true_score, made_score = (
            self.critic.judge(latent, self._whitened(vectors))
            for vectors in (fits, prediction.parameters.detach())
        )
        loss = critic_loss(true_score, made_score, true=sample.has_fit, made=made_up(sample))
        # What the regressor's own step left in the critic's gradients is not the critic's.
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.critic)
        self.critic_optimizer.step()
        return {"critic": loss.detach()}

    def training_state(self) -> dict:
        if self.critic is None:
            return {}
        return {
            "critic": self.critic.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
        }

    def load_training_state(self, state: dict) -> None:
        """Go on from `training_state`.

        Raises:
            ValueError: of a loss with a critic where this one has none, or the other way round.
        """
        if bool(state) != (self.critic is not None):
            raise ValueError(
                f"resume: that run had {'a' if state else 'no'} critic, this loss has "
                f"{'none' if state else 'one'}; resume with the same loss"
            )
        if state:
            self.critic.load_state_dict(state["critic"])
            self.critic_optimizer.load_state_dict(state["critic_optimizer"])

    def _points(self, parameters: Tensor) -> Tensor:  # (B, P)
        """The 68 landmarks in the unit of points, (B, 68, 3), at t_z = 0."""
        observed = torch.where(self._is_depth, 0.0, parameters)
        return crop_points(self.landmark_model, observed) / self.point_unit

    def _consistency_2d(
        self,
        points: Tensor,  # (B, 68, 3)
        sample: FaceSample,
    ) -> Tensor:
        """L_2d-con, (B,); points that are not visible weigh 0."""
        weights = self.point_weights * visible_18(sample.landmarks_visible)
        given = points_18(sample.landmarks) / self.point_unit
        return landmark_consistency(points_18(points[..., :2]) - given, weights)

    def _deception(self, prediction: Prediction, sample: FaceSample) -> Tensor:
        with torch.no_grad():  # the image is no part of what the regressor makes
            latent = self.critic.encode(sample.image)
        scores = self.critic.judge(latent, self._whitened(prediction.parameters))
        return deception_loss(scores, made_up(sample))

    def _whitened(self, parameters: Tensor) -> Tensor:  # (B, P)
        """The critic's input, (B, P)."""
        whitened = (parameters - self.parameter_mean) / self.supervised.parameter_std
        return torch.where(self._is_depth, 0.0, whitened)

    @property
    def _is_depth(self) -> Tensor:
        """(P,), bool: t_z, which no loss observes."""
        return torch.arange(self.num_parameters, device=self.parameter_mean.device) == DEPTH


def made_up(sample: FaceSample) -> Tensor | None:
    """Whose faces the critic takes for made up, (B,) bool: the images without a fit; None, or all
    in a batch in which each has one: all."""
    return None if sample.has_fit is None else ~sample.has_fit | sample.has_fit.all()
