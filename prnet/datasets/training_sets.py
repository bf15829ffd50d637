"""What a trainer reads: which samples in which order, reproducible from (seed, epoch) alone, so
that a resumed run meets the same batches."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, Sampler

from prnet.datasets.built import BuiltSet, held_out, photo_ranks
from prnet.datasets.evaluation import HeldOut
from prnet.datasets.given_landmarks import GivenLandmarks
from prnet.datasets.landmark_set import open_set
from prnet.datasets.pictures import FitItem, collate_fits, posed_fit
from prnet.datasets.records import extents_at_most
from prnet.geometry import camera
from prnet.sample import FitBatch, PosedFit


class TrainingData(ABC):
    """Samples to train on and held-out ones to choose best.pt by.

    - `pixel_origin`: of the labels.
    - `validation`: data sets of `EvaluationItem`s, never trained on; none: nothing is held out.
    - `given`: landmarks that a network is given beside the image; None: those of the fits.
    - `unfitted`: training samples of which landmarks alone are known.
    - `renders`: whether reading a sample keeps a core busy, as rendering does.
    """

    pixel_origin: str
    validation: list[Dataset]
    given: GivenLandmarks | None = None
    unfitted = 0
    renders = False

    @abstractmethod
    def __len__(self) -> int:
        """Samples in an epoch."""

    @abstractmethod
    def describe(self) -> dict:
        """What tells these samples from others, as plain values."""

    @abstractmethod
    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The epoch's samples, indices into `concatenated`, int (len,)."""

    @abstractmethod
    def concatenated(self) -> Dataset:
        """All training samples as one data set of `FitItem`s."""

    def extents(self, reach: float) -> np.ndarray | None:
        """Height and width, at most, of what `cut_to_reach` leaves of each picture of
        `concatenated`, int (n, 2), px; None: its samples are never the same twice."""
        return None

    @abstractmethod
    def posed_fits(self, count: int) -> PosedFit:
        """The fits of the first `count` samples of an epoch that have one, without pictures."""

    @abstractmethod
    def shown(self, count: int) -> FitBatch:
        """The first `count` held-out samples of each set, to look at."""


class TrainingPart(Dataset):
    """The training samples of a built set; where a fit is hidden, the landmarks alone may be
    learned from."""

    def __init__(
        self,
        built: BuiltSet,
        chosen: np.ndarray,  # (n,), bool, of the samples of the set
        has_fit: np.ndarray,  # (n,), bool
        landmarks: np.ndarray | None = None,  # (n, 68, 2), as `GivenLandmarks.points`
    ) -> None:
        self.built = built
        self.indices = np.flatnonzero(chosen)
        self.has_fit = has_fit[chosen]
        self.landmarks = landmarks

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> FitItem:
        item = sample_of(self.built, self.indices[position], self.landmarks)
        return item._replace(has_fit=bool(self.has_fit[position]))


def sample_of(
    built: BuiltSet,
    index: int,
    landmarks: np.ndarray | None,  # of the set, (n, 68, 2), as `GivenLandmarks.points`
) -> FitItem:
    """A sample, with those landmarks in place of its fit's."""
    item = built[index]
    if landmarks is None:
        return item
    image_points = torch.zeros(68, 3, dtype=torch.float64)
    image_points[:, :2] = torch.from_numpy(landmarks[index])
    image_points = camera.convert_origin(image_points, "zero_based", built.pixel_origin)
    crop_from_image = built.record(index).crop_from_image()
    return item._replace(landmarks=camera.transform_points(crop_from_image, image_points)[:, :2])


class TrainingSets(TrainingData):
    """Built sets split into training and validation by source photo.

    `ratios` weigh the sets in an epoch (2:1 draws two of the first for one of the second); None
    takes every sample of every set once. Sets without fits are for training alone. `hide_fits`
    takes that share of the other sets' photos for photos without a fit, by a hash of their name;
    `landmark_images` leaves no more than that many samples without a fit. `landmarks` is a file or
    folder for `GivenLandmarks`, of the samples of the sets with fits; the others have their own.
    """

    def __init__(
        self,
        directories: list[Path | str],
        *,
        ratios: list[float] | None = None,
        validation_fraction: float = 0.02,
        face: dict,
        hide_fits: float = 0.0,
        landmark_images: int | None = None,
        landmarks: Path | str | None = None,
    ) -> None:
        if not 0 <= hide_fits < 1:
            raise ValueError(f"hide_fits: got {hide_fits}, expected a share from 0 to below 1")
        self.sets = [open_set(directory, face) for directory in directories]
        if ratios is not None and (len(ratios) != len(self.sets) or min(ratios) <= 0):
            raise ValueError(
                f"built_ratios: got {list(ratios)}, expected a positive number for each of the "
                f"{len(self.sets)} sets in built"
            )
        origins = sorted({built.pixel_origin for built in self.sets})
        if len(origins) > 1:
            raise ValueError(
                f"built: the sets have labels of pixel origins {origins}; build them with one"
            )
        self.pixel_origin: str = origins[0]
        masks = [
            held_out(built.names, validation_fraction if built.has_fits else 0.0)
            for built in self.sets
        ]
        # No rank reaches 1.
        has_fit = [
            photo_ranks(built.names) >= (hide_fits if built.has_fits else 1.0)
            for built in self.sets
        ]
        kept = [~mask for mask in masks]
        if landmark_images is not None:
            kept = self._limited(kept, has_fit, landmark_images)
        self.given = None if landmarks is None else GivenLandmarks(landmarks)
        self.landmarks = [
            self.given.points(built.names) if self.given and built.has_fits else None
            for built in self.sets
        ]
        self.training = list(map(TrainingPart, self.sets, kept, has_fit, self.landmarks))
        self.validation = [
            HeldOut(built, np.flatnonzero(mask))
            for built, mask in zip(self.sets, masks, strict=True)
            if mask.any()
        ]
        empty = [str(part.built.directory) for part in self.training if not len(part)]
        if empty:
            raise ValueError(
                f"{', '.join(empty)}: no sample is left for training at "
                f"validation_fraction={validation_fraction}"
            )
        lengths = [len(part) for part in self.training]
        if ratios is None:
            self.draws = lengths
        else:
            share = np.asarray(ratios, dtype=np.float64) / sum(ratios)
            self.draws = np.maximum(1, np.rint(share * sum(lengths))).astype(int).tolist()

        # Of `concatenated`.
        self.fitted = np.concatenate([part.has_fit for part in self.training])
        self.unfitted = int((~self.fitted).sum())
        if not self.fitted.any():
            raise ValueError(
                "built: not one training sample has a fit, and landmarks alone teach no "
                "parameters; add a set with fits, or lower hide_fits"
            )

    def _limited(
        self, kept: list[np.ndarray], has_fit: list[np.ndarray], count: int
    ) -> list[np.ndarray]:
        """`kept` with the first `count` samples without a fit by a hash of their names.

        Raises:
            ValueError: there are fewer.
        """
        ranks = [
            np.where(mask & ~fitted, photo_ranks(built.names), np.inf)
            for built, mask, fitted in zip(self.sets, kept, has_fit, strict=True)
        ]
        ranked = np.concatenate(ranks)
        if np.isfinite(ranked).sum() < count:
            raise ValueError(
                f"landmark_images: got {count}, there are {np.isfinite(ranked).sum()} training "
                "samples without a fit; lower it, or null for all of them"
            )
        chosen = np.zeros(len(ranked), dtype=bool)
        chosen[np.argsort(ranked, kind="stable")[:count]] = True
        ends = np.cumsum([len(built) for built in self.sets])[:-1]
        limited = np.split(chosen, ends)
        return [
            mask & (fitted | few) for mask, fitted, few in zip(kept, has_fit, limited, strict=True)
        ]

    def __len__(self) -> int:
        return sum(self.draws)

    def describe(self) -> dict:
        digest = hashlib.sha256()
        for part, draws in zip(self.training, self.draws, strict=True):
            names = "\n".join(part.built.names[index] for index in part.indices)
            digest.update(f"{draws}\n{names}\n".encode() + part.has_fit.tobytes())
            if part.landmarks is not None:
                digest.update(part.landmarks.tobytes())
        return {"sha256": digest.hexdigest()[:12]}

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Shuffled; of each set as many as its ratio gives it."""
        random = np.random.default_rng([seed, epoch])
        start, chosen = 0, []
        for part, draws in zip(self.training, self.draws, strict=True):
            rounds = -(-draws // len(part))
            pool = np.concatenate([random.permutation(len(part)) for _ in range(rounds)])
            chosen.append(start + pool[:draws])
            start += len(part)
        return random.permutation(np.concatenate(chosen))

    def concatenated(self) -> Dataset:
        return ConcatDataset(self.training)

    def extents(self, reach: float) -> np.ndarray:
        return np.concatenate(
            [
                extents_at_most(part.built.records[part.indices], part.built.crop_rule, reach)
                for part in self.training
            ]
        )

    def posed_fits(self, count: int) -> PosedFit:
        ends = np.cumsum([len(part) for part in self.training])
        fits, matrices = [], []
        order = self.order(0, 0)
        for position in order[self.fitted[order]][:count]:
            which = int(np.searchsorted(ends, position, side="right"))
            part = self.training[which]
            record = part.built.record(part.indices[position - ends[which] + len(part)])
            fits.append(record.fit())
            matrices.append(record.crop_from_model())
        return posed_fit(fits, matrices)

    def shown(self, count: int) -> FitBatch:
        landmarks = dict(zip(map(id, self.sets), self.landmarks, strict=True))
        return collate_fits(
            [
                sample_of(part.built, int(index), landmarks[id(part.built)])
                for part in self.validation
                for index in part.indices[:count]
            ]
        )


@dataclass(eq=False)
class StepSampler(Sampler):
    """Batches of indices from step `start` on, without end; rank r of a world takes its share of
    each.

    Every global batch holds `batch_size` samples a rank; the rest of an epoch that fills none is
    left out.

    Raises:
        ValueError: an epoch does not fill one batch.
    """

    data: TrainingData
    _: KW_ONLY
    batch_size: int  # samples a process and step
    seed: int
    start: int = 0  # steps already made
    rank: int = 0
    world_size: int = 1  # processes

    def __post_init__(self) -> None:
        self.steps_per_epoch = len(self.data) // (self.batch_size * self.world_size)
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"{len(self.data)} training samples do not fill one batch of {self.batch_size} on "
                f"{self.world_size} process(es); lower trainer.batch_size"
            )

    def __iter__(self) -> Iterator[list[int]]:
        global_batch = self.batch_size * self.world_size
        epoch, step = divmod(self.start, self.steps_per_epoch)
        while True:
            order = self.data.order(self.seed, epoch)
            for i in range(step, self.steps_per_epoch):
                batch = order[i * global_batch : (i + 1) * global_batch]
                yield batch[self.rank :: self.world_size].tolist()
            epoch, step = epoch + 1, 0
