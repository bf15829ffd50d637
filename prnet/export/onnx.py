"""ONNX files of every network: an image in, a face out, for runtimes without torch.

Letters: B batch, H side of crop and map, N vertices, P parameters.
"""

import copy
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, fx, nn

from prnet.checks import require_choice
from prnet.faces.face import Face
from prnet.files import written_whole
from prnet.models.face_decoder import FaceDecoder
from prnet.models.network import Network

PRECISIONS = ("fp32", "fp16")
IMAGE = "image"
STACK_TRACE = "pkg.torch.onnx.stack_trace"
MAP_OUTPUTS = ("position_map", "landmarks")
REGRESSOR_OUTPUTS = (*MAP_OUTPUTS, "vertices", "parameters")
# Of coordinates, px: what rounding may do to the same network in two runtimes; of a network that is
# steep, as one is that was hardly trained, so many times what rounding does to it in torch alone.
LARGEST_DIFFERENCE_PX, TIMES_ROUNDING = 1e-3, 4


class FaceNetwork(nn.Module):
    """A network in eval mode with its face: what the file computes. It keeps the network."""

    def __init__(self, model: Network, face: Face) -> None:
        super().__init__()
        self.model = model
        model.set_face(face)
        self.decoder = FaceDecoder(model, face)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what `forward` returns."""
        return REGRESSOR_OUTPUTS if self.decoder.has_vertices else MAP_OUTPUTS

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:  # (B, 3, H, H), RGB in [0, 1]
        """Position map (B, 3, H, H), landmarks (B, 68, 3); of a network of parameters also
        vertices (B, N, 3) and the parameters (B, P); crop px, float32."""
        prediction = self.model(image)
        if not self.decoder.has_vertices:
            return prediction.position_map, self.decoder.landmarks(prediction)
        # From the vertices, not from the bases once more: the file has them once.
        vertices = self.decoder.mesh(prediction)
        landmarks = vertices[:, self.decoder.landmark_index]
        position_map = self.decoder.position_map(prediction, vertices)
        return position_map, landmarks, vertices, prediction.parameters


class Difference(NamedTuple):
    """Of an ONNX file's answers from torch's."""

    largest_px: float  # of any coordinate
    landmarks_nme: float  # mean distance of the landmarks, % of their box
    allowed_px: float  # of any coordinate, in float32


def write_onnx(
    model: Network,
    face: Face,
    path: Path | str,
    *,
    precision: str = "fp32",
    metadata: dict[str, str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> FaceNetwork:
    """Write the network as ONNX, "image" (B, 3, H, H), any B, to what `FaceNetwork` returns.

    With "fp16" the layers that the network itself lets run in half precision have half weights; in
    and out, and the geometry at the end, stay float32. `metadata` is written into the file, `say`
    is told what is being done. Returns what the file computes, with the weights as they were.

    Raises:
        ModuleNotFoundError: the packages of `pip install "prnet[onnx]"` are missing.
        ValueError: another precision, or the face is not the network's.
    """
    require_choice("precision", precision, PRECISIONS)
    require_exporter()
    # Contiguous: the file describes tensors without a memory format.
    model = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format)
    network = FaceNetwork(model, face.to("cpu")).eval().requires_grad_(False)
    side = face.uv.resolution
    image = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    traced = network if precision == "fp32" else in_half(network, image)
    file = translated(traced, image, list(network.outputs), say=say)
    facts = {"precision": precision, "face": json.dumps(face.describe()), **(metadata or {})}
    file.model.metadata_props.update(facts)
    say("writing it")
    with written_whole(path) as temporary:
        file.save(temporary)
    return network


def translated(
    traced: nn.Module, image: Tensor, outputs: Sequence[str] | None, *, say: Callable[[str], None]
) -> "torch.onnx.ONNXProgram":
    """A module in eval mode of one image (2, C, H, W) as ONNX, of any batch; "image" is what the
    file calls it.

    Raises:
        ModuleNotFoundError: the packages of `pip install "prnet[onnx]"` are missing.
    """
    require_exporter()
    say("following the network")
    with torch.no_grad():
        program = torch.export.export(
            traced, (image,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
        )
    parts = [part for part in program.graph_module.modules() if isinstance(part, fx.GraphModule)]
    operations = sum(node.op == "call_function" for part in parts for node in part.graph.nodes)
    say(f"translating its {operations} operations")
    for optimizer in ("onnx_ir", "onnxscript"):  # they tell of every node
        logging.getLogger(optimizer).setLevel(logging.WARNING)
    translation = torch.onnx.export(
        program, input_names=[IMAGE], output_names=outputs, dynamo=True, verbose=False
    )
    # Torch notes of every node where in the source it comes from, with the paths of this machine.
    for node in translation.model.graph.all_nodes():
        node.metadata_props.pop(STACK_TRACE, None)
    return translation


def require_exporter() -> None:
    try:
        import onnxscript  # noqa: F401 - torch's exporter fails without it, less clearly
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'writing ONNX needs more packages: pip install "prnet[onnx]"'
        ) from error


def in_half(network: FaceNetwork, image: Tensor) -> FaceNetwork:
    """A copy with half weights in those layers that run under autocast; the network takes the
    others out of it itself, since coordinates of 256 px in half precision are 1/4 px apart."""
    network = copy.deepcopy(network)
    allowed: list[nn.Module] = []

    def note(layer: nn.Module, _inputs: tuple) -> None:
        if torch.is_autocast_enabled("cpu"):
            allowed.append(layer)

    def convert(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(layer.weight.dtype) for tensor in inputs)

    layers = [
        part for part in network.modules() if isinstance(getattr(part, "weight", None), Tensor)
    ]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        network(image[:1])
    for handle in handles:
        handle.remove()
    for layer in layers:
        if layer in allowed:
            layer.half()
        layer.register_forward_pre_hook(convert)
    return network


def difference(path: Path | str, network: FaceNetwork, images: Tensor) -> Difference:
    """How far the file's answers to images (B, 3, H, H) are from the network's."""
    import onnxruntime  # asked for once `write_onnx` has named the packages

    with torch.inference_mode():
        expected = [value.numpy() for value in network(images)]
        again = [value.numpy() for value in network(rounded_otherwise(images))]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(list(network.outputs), {IMAGE: images.numpy()})
    count = 3 if network.decoder.has_vertices else 2  # the parameters are no coordinates
    largest, moved = (
        max(float(np.abs(a - b).max()) for a, b in zip(other[:count], expected, strict=False))
        for other in (found, again)
    )
    landmarks = expected[1][..., :2]
    box = np.sqrt(np.ptp(landmarks, axis=1).prod(-1)).clip(1)  # (B,); 1 px: of no face
    apart = np.linalg.norm(found[1] - expected[1], axis=-1).mean(1)
    return Difference(largest, float((100 * apart / box).mean()), allowed_px(moved))


def rounded_otherwise(images: Tensor) -> Tensor:
    """The images, float32, with the last bit of every value by chance."""
    chance = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    return images * (1 + torch.finfo(images.dtype).eps * (2 * chance - 1))


def allowed_px(moved: float) -> float:
    """How far coordinates may lie from torch's, px, where rounding of the image moves torch's own
    by `moved`."""
    return max(LARGEST_DIFFERENCE_PX, TIMES_ROUNDING * moved)
