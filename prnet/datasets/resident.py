"""A training set as it lies on the device: each sample read once, its picture as the file has it,
no more of it than augmentation can reach.

Letters: N samples, B batch, R rows of all pictures, H W the largest picture's height and width.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from prnet.datasets.pictures import FitItem, collate_fits, cut_to_reach
from prnet.sample import FitBatch
from prnet.workers import loader_of

# Samples read at a time while the set is filled.
AT_ONCE = 64


class Room(NamedTuple):
    """What the pictures of a set take, at most."""

    height: int  # of the tallest, px
    width: int  # of the widest, px
    rows: int  # of all of them

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rows * self.width * 3


def room_of(extents: np.ndarray) -> Room:  # (N, 2), heights and widths, px
    """Of pictures no larger than that; one row more is for what lies below a picture."""
    height, width = (int(most) for most in extents.max(0))
    return Room(height, width, int(extents[:, 0].sum()) + 1)


class ResidentSet:
    """All samples of a set on one device; `batch` is what `collate_fits` makes of them, but that
    every batch is padded to the room's height and width.

    Raises:
        MemoryError: the device has no room for them.
    """

    def __init__(
        self,
        samples: Dataset,  # of `FitItem`s without `visible`
        room: Room,
        device: torch.device,
        *,
        reach: float,  # see `cut_to_reach`
        num_workers: int = 0,
        shown: Callable[[Iterable], Iterable] = iter,  # a bar around the batches that are read
    ) -> None:
        self.device = device
        self.height = room.height
        # All rows are as long as the longest, so that a batch is a choice of rows.
        try:
            self.rows = torch.zeros(room.rows, room.width, 3, dtype=torch.uint8, device=device)
        except RuntimeError as error:  # torch's own OutOfMemoryError is one
            raise MemoryError(
                f"{device} has no room for the {room.size / 1e9:.1f} GB of the training set"
            ) from error
        loader = loader_of(
            samples,
            functools.partial(_read, reach=reach),
            batch_size=AT_ONCE,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
        )
        parts = list(self._filled(shown(loader)))
        heights = torch.cat([part.heights for part in parts])
        self.heights = heights.to(device)  # (N,)
        self.first_row = (heights.cumsum(0) - heights + 1).to(device)  # (N,)
        self.fields = {
            name: torch.cat([getattr(part.fits, name) for part in parts])
            for name in FitBatch._fields
            if name not in ("picture", "visible")
        }
        # What a batch brings besides fits is known where its indices are.
        self.host_has_fit = torch.cat([part.has_fit for part in parts]).numpy()
        self.host_has_landmarks = torch.cat([part.has_landmarks for part in parts]).numpy()

    def _filled(self, batches: Iterable["_Read"]) -> Iterable["_Read"]:
        """The batches without their pictures, which have found their rows."""
        row = 1
        for read in batches:
            fits = read.fits.to(self.device)
            for picture, height in zip(fits.picture, read.heights.tolist(), strict=True):
                own = picture[:, :height].permute(1, 2, 0)
                self.rows[row : row + height, : own.shape[1]] = own
                row += height
            yield read._replace(fits=fits._replace(picture=None))

    def batch(self, indices: Sequence[int]) -> FitBatch:
        """These samples."""
        index = torch.as_tensor(indices)
        if self.device.type == "cuda":
            index = index.pin_memory().to(self.device, non_blocking=True)
        fits = self.gathered(index)
        if self.host_has_fit[indices].all():
            fits = fits._replace(has_fit=None)
            if not self.host_has_landmarks[indices].any():
                fits = fits._replace(landmarks=None)
        return fits

    def gathered(self, index: Tensor) -> FitBatch:  # (B,), int64, on the device
        """The same with all fields, whatever they hold: the device need not be asked."""
        line = torch.arange(self.height, device=self.device)
        rows = self.first_row[index][:, None] + line
        rows = torch.where(line < self.heights[index][:, None], rows, 0)
        picture = self.rows.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        fields = {name: values.index_select(0, index) for name, values in self.fields.items()}
        return FitBatch(picture=picture.permute(0, 3, 1, 2), **fields)


class _Read(NamedTuple):
    """Samples on their way to the device."""

    fits: FitBatch  # with landmarks and has_fit
    heights: Tensor  # (B,), px
    has_fit: Tensor  # (B,), bool
    has_landmarks: Tensor  # (B,), bool


def _read(items: list[FitItem], *, reach: float) -> _Read:
    items = [cut_to_reach(item, reach) for item in items]
    fits = collate_fits(items)
    has_fit = torch.tensor([item.has_fit for item in items])
    landmarks = fits.landmarks
    if landmarks is None:
        landmarks = torch.full((len(items), 68, 2), float("nan"))
    return _Read(
        fits._replace(has_fit=has_fit, landmarks=landmarks),
        torch.tensor([len(item.picture) for item in items]),
        has_fit,
        torch.tensor([item.landmarks is not None for item in items]),
    )
