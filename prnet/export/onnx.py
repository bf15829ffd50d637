"""ONNX files of the networks that regress parameters, for runtimes without torch."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from prnet.files import written_whole
from prnet.models.regressor import Regressor

IMAGE, LANDMARK_MAP, PARAMETERS = "image", "landmark_map", "parameters"


class ParametersAlone(nn.Module):
    """What of a regressor needs no face model: image -> parameters."""

    def __init__(self, model: Regressor) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        image: Tensor,  # (B, 3, s, s), RGB in [0, 1]
        landmark_map: Tensor | None = None,  # (B, 1, s, s), for a network that takes one
    ) -> Tensor:
        """(B, P), in their units."""
        seen = self.model.prepare(image)
        if landmark_map is not None:
            seen = torch.cat([seen, landmark_map], 1)
        return self.model.parameters_of(self.model.whitened(seen))


def example_inputs(model: Regressor, *, batch: int = 1) -> dict[str, Tensor]:
    """Noise that `ParametersAlone` of this model takes, by the names of the file's inputs."""
    side = model.input_side
    inputs = {IMAGE: torch.rand(batch, 3, side, side)}
    if model.input_channels > 3:
        inputs[LANDMARK_MAP] = torch.rand(batch, model.input_channels - 3, side, side)
    return inputs


def write_onnx(model: Regressor, path: Path | str) -> None:
    """Write the network as ONNX: "image" (B, 3, s, s), RGB in [0, 1], of the crop at the network's
    own side s -> "parameters" (B, P), any B; 2DASL's takes a "landmark_map" (B, 1, s, s) too.

    The parameters are those of `prnet.geometry.pose_parameters`, whitening undone, in px of the
    256 px crop. 2DASL's two passes are the caller's: the first with an empty map.

    Raises:
        ModuleNotFoundError: the packages of `pip install "prnet[onnx]"` are missing.
        ValueError: the model regresses no parameters.
    """
    if not isinstance(model, Regressor):
        raise ValueError(
            f"{type(model).__name__} predicts a map; only networks that regress parameters are "
            "written as ONNX"
        )
    try:
        import onnxscript  # noqa: F401 - torch's exporter fails without it, less clearly
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'writing ONNX needs more packages: pip install "prnet[onnx]"'
        ) from error
    # Contiguous: the file describes tensors without a memory format.
    model = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format)
    network = ParametersAlone(model).eval()
    inputs = example_inputs(model, batch=2)
    program = torch.onnx.export(
        network,
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=[PARAMETERS],
        dynamic_shapes=tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs),
        dynamo=True,
        verbose=False,
    )
    with written_whole(path) as temporary:
        program.save(temporary)
