"""The linear 3D morphable model. Letters: B batch, N vertices, S shape and E expression bases."""

import torch
from torch import Tensor, nn


class MorphableModel(nn.Module):
    """V = mean + shape_basis a + exp_basis b, in the model frame.

    `mean` is the neutral mean with the mean expression already added (BFM: shapeMU + expMU),
    exactly once.

    Source: 2DASL eq. 1; 300W-LP's coefficients carry their standard deviation, so no eigenvalue
        appears.
    """

    def __init__(
        self,
        mean: Tensor,  # (N, 3)
        shape_basis: Tensor,  # (S, N, 3)
        exp_basis: Tensor,  # (E, N, 3)
    ) -> None:
        super().__init__()
        if mean.ndim != 2 or mean.shape[1] != 3:
            raise ValueError(f"mean: got shape {tuple(mean.shape)}, expected (N, 3)")
        for name, basis in (("shape_basis", shape_basis), ("exp_basis", exp_basis)):
            if basis.shape[1:] != mean.shape:
                raise ValueError(
                    f"{name}: got shape {tuple(basis.shape)}, expected (*, {mean.shape[0]}, 3)"
                )
        self.num_shape = shape_basis.shape[0]
        self.num_exp = exp_basis.shape[0]
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("basis", torch.cat([shape_basis, exp_basis]), persistent=False)

    @property
    def num_vertices(self) -> int:
        return self.mean.shape[0]

    def forward(
        self,
        shape_params: Tensor,  # (B, >= S); only the leading S are used
        exp_params: Tensor,  # (B, >= E)
    ) -> Tensor:
        """Vertices (B, N, 3) in the model frame.

        Raises:
            ValueError: fewer coefficients than bases.
        """
        coefficients = self.leading_coefficients(shape_params, exp_params)
        # Not numpy's product, which is faster for few rows: a face must not depend on its batch.
        vertices = torch.addmm(self.mean.flatten(), coefficients, self.basis.flatten(1))  # (B, 3 N)
        return vertices.unflatten(1, (-1, 3))

    def leading_coefficients(self, shape_params: Tensor, exp_params: Tensor) -> Tensor:
        """(B, S + E): the coefficients this model has bases for, of a fit that may have more."""
        for name, params, count in (
            ("shape_params", shape_params, self.num_shape),
            ("exp_params", exp_params, self.num_exp),
        ):
            if params.shape[-1] < count:
                raise ValueError(
                    f"{name}: got {params.shape[-1]} values, the model has {count} bases"
                )
        return torch.cat([shape_params[:, : self.num_shape], exp_params[:, : self.num_exp]], -1)

    def truncated(self, num_shape: int, num_exp: int) -> "MorphableModel":
        """The same model with its leading bases alone.

        Raises:
            ValueError: it has fewer.
        """
        if not (0 <= num_shape <= self.num_shape and 0 <= num_exp <= self.num_exp):
            raise ValueError(
                f"got {num_shape} shape and {num_exp} expression coefficients, the face has "
                f"{self.num_shape} and {self.num_exp} bases; lower num_shape and num_exp"
            )
        if (num_shape, num_exp) == (self.num_shape, self.num_exp):
            return self
        shape_basis, exp_basis = self.basis[: self.num_shape], self.basis[self.num_shape :]
        return MorphableModel(self.mean, shape_basis[:num_shape], exp_basis[:num_exp])

    def at_vertices(self, index: Tensor) -> "MorphableModel":  # (K,)
        """The same model reduced to the vertices `index` (landmarks, for one)."""
        basis = self.basis[:, index]
        return MorphableModel(self.mean[index], basis[: self.num_shape], basis[self.num_shape :])
