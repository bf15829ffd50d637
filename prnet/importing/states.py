"""Files of weights that others wrote, as tensors by name, and what becomes of the names."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.checks import faults_listed

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Put before every name by torch's DataParallel and torch.compile.
PREFIXES = ("module.", "_orig_mod.")
# A file of torch may keep its weights under one of these, beside an epoch or an optimiser.
NESTED = ("state_dict", "model", "net")


class Imported(NamedTuple):
    """Weights as one of the package's networks takes them."""

    source: str  # what they are, in words
    configuration: str  # the file of configs/model that the network is of
    changes: dict[str, object]  # values of it that the weights decide
    weights: dict[str, Tensor]
    pixel_origin: str  # of the labels that the network learned from
    mean_shape_map: Tensor | None = None  # (3, 256, 256), of SADRNet


def require_weights(path: Path) -> None:
    """Raise FileNotFoundError where there is no such file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")


def read_state(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a torch file, a state_dict or one with it inside, or of an .npz; names without
    the prefixes of parallel and compiled networks. No code in the file is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither, damaged, or no dictionary of tensors.
    """
    path = Path(path)
    require_weights(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged file makes both raise nearly anything
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: not a readable file of torch or numpy ({reason})") from error
    for key in NESTED:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        found = sorted(map(str, state))[:5] if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path}: got {found}, expected a state_dict of tensors")
    return {_without_prefixes(str(name)): tensor for name, tensor in state.items()}


def _without_prefixes(name: str) -> str:
    for prefix in PREFIXES * 2:  # they come in either order
        name = name.removeprefix(prefix)
    return name


class Names:
    """Names in a file -> names here, gathered part by part."""

    def __init__(self) -> None:
        self.own: dict[str, str] = {}

    def add(self, theirs: str, own: str, *, tensors: tuple[str, ...] = ("weight",)) -> None:
        """A layer by its name there and here."""
        self.own.update({f"{theirs}.{tensor}": f"{own}.{tensor}" for tensor in tensors})

    def add_norm(self, theirs: str, own: str) -> None:
        """A batch norm."""
        self.add(theirs, own, tensors=NORM_TENSORS)

    def renamed(
        self,
        state: Mapping[str, Tensor],
        *,
        source: str,
        ignored: tuple[str, ...] = (),
    ) -> dict[str, Tensor]:
        """The tensors by their names here: all must be there, and none be left over but `ignored`
        ones; shapes are checked where weights are loaded (`checkpoint.load_weights`).

        Raises:
            ValueError: a name is missing or too many; `source` says of what.
        """
        faults = {
            "missing": [name for name in self.own if name not in state],
            "unexpected": [n for n in state if n not in self.own and n not in ignored],
        }
        if found := faults_listed(faults):
            raise ValueError(f"not the weights of {source} ({len(state)} tensors): {found}")
        return {own: state[theirs] for theirs, own in self.own.items()}
