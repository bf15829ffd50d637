"""What a CUDA card would have to wait for, counted without one.

Tensors that say they are on a card and hold nothing run through batch preparation, network and
losses; what needs a value of them for a shape, a branch or a number raises, and copies from and to
the host are seen as they are made.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

READ_BACK = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_linalg_check_errors",
    "is_nonzero",
}
# Python's numbers as a new tensor of the host, on their way to where they are needed.
FRESH = "lift_fresh"


class Waits(TorchDispatchMode):
    """Names in `found` every operation that has host and card wait for each other."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation, _types, given=(), options=None):
        name = operation.overloadpacket.__name__
        result = operation(*given, **(options or {}))
        tensors = [
            part for part in pytree.tree_leaves((given, options)) if isinstance(part, Tensor)
        ]
        indexed_by = given[1] if name in ("index", "index_put", "index_put_") else ()
        places = {tensor.device.type for tensor in tensors}
        if isinstance(result, Tensor):
            places.add(result.device.type)
        if (
            name in READ_BACK
            or name.startswith(FRESH)
            or any(index is not None and index.dtype == torch.bool for index in indexed_by)
            or (places - {"meta"} == {"cpu", "cuda"})
        ):
            ours = [call for call in traceback.extract_stack() if "/prnet/" in call.filename]
            self.found.append(f"{name} {ours[-1:]}")
        return result


@contextmanager
def imagined_card() -> Iterator[None]:
    """Whatever is made within is imagined."""
    # cuDNN's own operators cannot be imagined; what they stand for can.
    with torch.backends.cudnn.flags(enabled=False), FakeTensorMode():
        yield


def on_card(values: object) -> object:
    """A module, changed, or containers of tensors, made anew, as if they were on a card."""
    if isinstance(values, nn.Module):
        for module in values.modules():
            for kind in (module._parameters, module._buffers):
                for name, tensor in kind.items():
                    if tensor is not None:
                        kind[name] = _imagined(tensor)
        return values
    return pytree.tree_map_only(Tensor, _imagined, values)


def _imagined(tensor: Tensor) -> Tensor:
    with torch.no_grad():
        there = torch.zeros(tensor.shape, dtype=tensor.dtype, device="cuda")
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(there, requires_grad=tensor.requires_grad) if is_parameter else there
