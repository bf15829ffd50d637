"""The least-squares problem of `prnet.geometry.fitting` and its solver, for a batch of faces.

Letters: B batch, K points, D = 2 or 3 coordinates, C coefficients, P = 4 + D + C parameters: log
scale, three of a turn, D of the translation, the coefficients.
"""

from typing import NamedTuple

import torch
from torch import Tensor

LOSSES = ("squared", "huber", "geman_mcclure")
# Damping as a share of the diagonal of the normal matrix.
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-12, 1e8
# Cosine of how far a face may look away from the camera. Without depth a mirrored face is the same
# as one seen from behind, through the head; no landmark is marked there.
LEAST_FACING = -0.4


class State(NamedTuple):
    """One estimate per item, float64; R V f + t of a model V = mean + basis c."""

    scale: Tensor  # (B,), > 0
    rotation: Tensor  # (B, 3, 3), det +1
    translation: Tensor  # (B, D)
    coefficients: Tensor  # (B, C)

    def at(self, items: Tensor) -> "State":
        return State(*(values[items] for values in self))


class Problem(NamedTuple):
    """E = sum_k w_k rho(|r_k|^2 / point_std^2) + sum_c precision_c c^2, r_k = P(f R V_k + t) - y_k.

    rho(e) is e up to (robust_scale / point_std)^2 =: k^2 and Huber's 2 k sqrt(e) - k^2 from there;
    or Geman and McClure's e / (1 + e / k^2).
    """

    mean: Tensor  # (B or 1, K, 3), model frame
    basis: Tensor  # (B or 1, C, K, 3)
    target: Tensor  # (B, K, D), y up
    weights: Tensor  # (B, K)
    precision: Tensor  # (C,), 1 / std^2 of each coefficient
    lower: Tensor  # (C,)
    upper: Tensor  # (C,)
    point_std: float  # in units of the target
    loss: str
    robust_scale: float  # in units of the target

    def at(self, items: Tensor) -> "Problem":
        mean, basis = (
            values if len(values) == 1 else values[items] for values in (self.mean, self.basis)
        )
        return self._replace(
            mean=mean, basis=basis, target=self.target[items], weights=self.weights[items]
        )

    def pose_only(self) -> "Problem":
        """The same for the mean alone, C = 0."""
        none = self.precision[:0]
        return self._replace(basis=self.basis[:, :0], precision=none, lower=none, upper=none)


class Solution(NamedTuple):
    """Where the solver ended."""

    state: State
    energy: Tensor  # (B,)
    converged: Tensor  # (B,), bool
    iterations: Tensor  # (B,), int64, steps tried


def minimise(
    problem: Problem,
    state: State,
    *,
    max_iterations: int,
    tolerance: float,
) -> Solution:
    """Levenberg-Marquardt with reweighting by rho' and projection into the bounds.

    An item has converged, and leaves the batch, when a step is expected to gain less than
    tolerance^2: it is then shorter than `tolerance` posterior standard deviations. One that no step
    improves, as at the limit of how far a face may look away, leaves without having converged.
    """
    count, device = len(state.scale), state.scale.device
    converged = torch.zeros(count, dtype=torch.bool, device=device)
    iterations = torch.zeros(count, dtype=torch.int64, device=device)
    damping = torch.full_like(state.scale, FIRST_DAMPING)
    state = State(*(values.clone() for values in state))
    energy, gradient, normal = _linearise(problem, state)
    for _ in range(max_iterations):
        active = (~converged & (damping < MOST_DAMPING)).nonzero().flatten()
        if len(active) == 0:
            break
        part, here = problem.at(active), state.at(active)
        step = _damped_step(part, here, gradient[active], normal[active], damping[active])
        proposal = _moved(part, here, step)
        reached, next_gradient, next_normal = _linearise(part, proposal)

        gain = -(step * gradient[active]).sum(1)
        resolved = torch.finfo(step.dtype).eps * energy[active]
        small = gain <= resolved.clamp(min=tolerance**2)
        better = (reached <= energy[active]) & (proposal.rotation[:, 2, 2] >= LEAST_FACING)
        # A step is short for its damping too: only one that is nearly undamped tells.
        converged[active] = small & (damping[active] <= FIRST_DAMPING)
        damping[active] *= torch.where(better | small, 0.1, 5.0)
        damping.clamp_(LEAST_DAMPING, MOST_DAMPING)
        iterations[active] += 1

        accepted = active[better]
        for values, proposed in zip(state, proposal, strict=True):
            values[accepted] = proposed[better]
        energy[accepted] = reached[better]
        gradient[accepted] = next_gradient[better]
        normal[accepted] = next_normal[better]
    return Solution(state, energy, converged, iterations)


def residual_of(problem: Problem, state: State) -> Tensor:
    """P (f R V + t) - y, (B, K, D)."""
    dims = problem.target.shape[-1]
    return _turned(problem, state)[..., :dims] + state.translation[:, None] - problem.target


def jacobian_of(problem: Problem, state: State) -> Tensor:
    """The residual's derivative by (log f, w, t, c), R <- exp([w]) R, (B, K D, P)."""
    count, num_points, dims = problem.target.shape
    turned = _turned(problem, state)  # (B, K, 3)
    # The column of w_i is e_i x turned.
    turn = -_cross_matrix(turned)[..., :dims, :]  # (B, K, D, 3)
    shift = torch.eye(dims, dtype=turned.dtype, device=turned.device)
    shift = shift.expand(count, num_points, dims, dims)
    linear = state.scale[:, None, None] * state.rotation[:, :dims]  # (B, D, 3)
    bases = problem.basis.transpose(1, 2) @ linear[:, None].transpose(-1, -2)  # (B, K, C, D)
    columns = [turned[..., :dims, None], turn, shift, bases.transpose(-1, -2)]
    return torch.cat(columns, -1).flatten(1, 2)


def _turned(problem: Problem, state: State) -> Tensor:
    """f R V, (B, K, 3)."""
    offset = (state.coefficients[:, None] @ problem.basis.flatten(2)).squeeze(1)  # (B, 3 K)
    vertices = problem.mean + offset.unflatten(1, (-1, 3))
    return state.scale[:, None, None] * vertices @ state.rotation.transpose(1, 2)


def _linearise(problem: Problem, state: State) -> tuple[Tensor, Tensor, Tensor]:
    """E (B,), half its gradient (B, P) and half its Gauss-Newton matrix (B, P, P)."""
    residual = residual_of(problem, state)  # (B, K, D)
    error = residual.square().sum(-1) / problem.point_std**2  # (B, K)
    limit = (problem.robust_scale / problem.point_std) ** 2
    if problem.loss == "huber":
        cost = torch.where(error > limit, 2 * (limit * error).sqrt() - limit, error)
        slope = (limit / error.clamp(min=limit)).sqrt()
    elif problem.loss == "geman_mcclure":
        cost, slope = error / (1 + error / limit), (1 + error / limit).pow(-2)
    else:
        cost, slope = error, torch.ones_like(error)
    prior = problem.precision * state.coefficients  # (B, C)
    energy = (problem.weights * cost).sum(1) + (prior * state.coefficients).sum(1)

    jacobian = jacobian_of(problem, state)
    strength = problem.weights * slope / problem.point_std**2
    weighted = jacobian * strength.repeat_interleave(residual.shape[-1], 1)[..., None]
    gradient = (weighted.transpose(1, 2) @ residual.flatten(1)[..., None]).squeeze(-1)
    normal = weighted.transpose(1, 2) @ jacobian
    num_pose = gradient.shape[1] - len(problem.precision)
    gradient[:, num_pose:] += prior
    normal.diagonal(dim1=1, dim2=2)[:, num_pose:] += problem.precision
    return energy, gradient, normal


def _damped_step(
    problem: Problem,
    state: State,
    gradient: Tensor,  # (B, P)
    normal: Tensor,  # (B, P, P)
    damping: Tensor,  # (B,)
) -> Tensor:
    """-(N + damping diag N)^-1 g over the parameters no bound holds back, (B, P)."""
    num_pose = gradient.shape[1] - len(problem.precision)
    held = torch.zeros_like(gradient, dtype=torch.bool)
    slope = gradient[:, num_pose:]
    held[:, num_pose:] = (state.coefficients <= problem.lower) & (slope > 0)
    held[:, num_pose:] |= (state.coefficients >= problem.upper) & (slope < 0)
    normal = normal.masked_fill(held[:, :, None] | held[:, None, :], 0)
    diagonal = normal.diagonal(dim1=1, dim2=2)
    # A coefficient that moves no point and has no prior stays where it is.
    idle = held | (diagonal <= 0)
    diagonal.copy_(torch.where(idle, torch.ones_like(diagonal), diagonal * (1 + damping[:, None])))
    factor, _ = torch.linalg.cholesky_ex(normal)
    return -torch.cholesky_solve(gradient.masked_fill(held, 0)[..., None], factor).squeeze(-1)


def _moved(problem: Problem, state: State, step: Tensor) -> State:  # (B, P)
    """The state after a step, the coefficients projected into their bounds."""
    dims = problem.target.shape[-1]
    growth, turn, shift, change = step.split([1, 3, dims, len(problem.precision)], 1)
    return State(
        scale=state.scale * growth.squeeze(1).exp(),
        rotation=torch.linalg.matrix_exp(_cross_matrix(turn)) @ state.rotation,
        translation=state.translation + shift,
        coefficients=(state.coefficients + change).clamp(problem.lower, problem.upper),
    )


def _cross_matrix(vectors: Tensor) -> Tensor:  # (..., 3)
    """[v], with [v] u = v x u, (..., 3, 3)."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
