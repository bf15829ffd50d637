"""What a trainer reads: which samples in which order, reproducible from (seed, epoch) alone, so
that a resumed run meets the same batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Sampler, Subset

from prnet.datasets.built import BuiltSet, held_out, photo_ranks
from prnet.datasets.evaluation import HeldOut
from prnet.datasets.landmark_set import LandmarkSet, open_set
from prnet.datasets.pictures import FitItem, collate_fits, posed_fit
from prnet.sample import FitBatch, PosedFit
from prnet.workers import worker_settings


class TrainingData(ABC):
    """Samples to train on and held-out ones to choose best.pt by.

    - `pixel_origin`: of the labels.
    - `validation`: data sets of `EvaluationItem`s, never trained on; none: nothing is held out.
    - `unfitted`: training samples of which landmarks alone are known.
    - `renders`: whether reading a sample keeps a core busy, as rendering does.
    """

    pixel_origin: str
    validation: list[Dataset]
    unfitted = 0
    renders = False

    @abstractmethod
    def __len__(self) -> int:
        """Samples in an epoch."""

    @abstractmethod
    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The epoch's samples, indices into `concatenated`, int (len,)."""

    @abstractmethod
    def concatenated(self) -> Dataset:
        """All training samples as one data set of `FitItem`s."""

    @abstractmethod
    def posed_fits(self, count: int) -> PosedFit:
        """The fits of the first `count` samples of an epoch that have one, without pictures."""

    @abstractmethod
    def shown(self, count: int) -> FitBatch:
        """The first `count` held-out samples of each set, to look at."""


class PartlyFitted(Dataset):
    """A built set of which some fits are hidden: their landmarks alone may be learned from."""

    def __init__(self, built: BuiltSet, has_fit: np.ndarray) -> None:  # (n,), bool
        self.built = built
        self.has_fit = has_fit

    def __len__(self) -> int:
        return len(self.built)

    def __getitem__(self, index: int) -> FitItem:
        return self.built[index]._replace(has_fit=bool(self.has_fit[index]))


class TrainingSets(TrainingData):
    """Built sets split into training and validation by source photo.

    `ratios` weigh the sets in an epoch (2:1 draws two of the first for one of the second); None
    takes every sample of every set once. Sets without fits are for training alone. `hide_fits`
    takes that share of the other sets' photos for photos without a fit, by a hash of their name;
    `landmark_images` leaves no more than that many samples without a fit.
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
    ) -> None:
        if not 0 <= hide_fits < 1:
            raise ValueError(f"hide_fits: got {hide_fits}, expected a share from 0 to below 1")
        self.sets = [open_set(directory, face) for directory in directories]
        if ratios is not None and (len(ratios) != len(self.sets) or min(ratios) <= 0):
            raise ValueError(
                f"built_ratios: got {list(ratios)}, expected a positive number for each of the "
                f"{len(self.sets)} sets in built"
            )
        origins = sorted({built.info.format["pixel_origin"] for built in self.sets})
        if len(origins) > 1:
            raise ValueError(
                f"built: the sets have labels of pixel origins {origins}; build them with one"
            )
        self.pixel_origin: str = origins[0]
        masks = [
            held_out(built.names, 0.0 if isinstance(built, LandmarkSet) else validation_fraction)
            for built in self.sets
        ]
        self.has_fit = [
            np.zeros(len(built), dtype=bool)
            if isinstance(built, LandmarkSet)
            else photo_ranks(built.names) >= hide_fits
            for built in self.sets
        ]
        kept = [~mask for mask in masks]
        if landmark_images is not None:
            kept = self._limited(kept, landmark_images)
        self.training = [
            Subset(PartlyFitted(built, has_fit), np.flatnonzero(mask).tolist())
            for built, has_fit, mask in zip(self.sets, self.has_fit, kept, strict=True)
        ]
        self.validation = [
            HeldOut(built, np.flatnonzero(mask))
            for built, mask in zip(self.sets, masks, strict=True)
            if mask.any()
        ]
        empty = [
            str(built.directory)
            for built, part in zip(self.sets, self.training, strict=True)
            if not part
        ]
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

        fitted = [
            has_fit[part.indices] for part, has_fit in zip(self.training, self.has_fit, strict=True)
        ]
        self.fitted = np.concatenate(fitted)  # of `concatenated`
        self.unfitted = int((~self.fitted).sum())
        if not self.fitted.any():
            raise ValueError(
                "built: not one training sample has a fit, and landmarks alone teach no "
                "parameters; add a set with fits, or lower hide_fits"
            )

    def _limited(self, kept: list[np.ndarray], count: int) -> list[np.ndarray]:
        """`kept` with the first `count` samples without a fit by a hash of their names.

        Raises:
            ValueError: there are fewer.
        """
        ranks = [photo_ranks(built.names) for built in self.sets]
        for one, mask, has_fit in zip(ranks, kept, self.has_fit, strict=True):
            one[~mask | has_fit] = np.inf
        ranked = np.concatenate(ranks)
        if np.isfinite(ranked).sum() < count:
            raise ValueError(
                f"landmark_images: got {count}, there are {np.isfinite(ranked).sum()} training "
                "samples without a fit; lower it, or null for all of them"
            )
        chosen = np.zeros(len(ranked), dtype=bool)
        chosen[np.argsort(ranked, kind="stable")[:count]] = True
        ends = np.cumsum([len(built) for built in self.sets])[:-1]
        return [
            mask & (has_fit | limited)
            for mask, has_fit, limited in zip(
                kept, self.has_fit, np.split(chosen, ends), strict=True
            )
        ]

    def __len__(self) -> int:
        return sum(self.draws)

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

    def posed_fits(self, count: int) -> PosedFit:
        ends = np.cumsum([len(part) for part in self.training])
        fits, matrices = [], []
        order = self.order(0, 0)
        for position in order[self.fitted[order]][:count]:
            which = int(np.searchsorted(ends, position, side="right"))
            part = self.training[which]
            index = part.indices[int(position) - int(ends[which]) + len(part)]
            fits.append(self.sets[which].fit(index))
            matrices.append(self.sets[which].crop_from_model(index))
        return posed_fit(fits, matrices)

    def shown(self, count: int) -> FitBatch:
        return collate_fits(
            [part.built[int(index)] for part in self.validation for index in part.indices[:count]]
        )


class StepSampler(Sampler):
    """Batches of indices from step `start` on, without end; rank r of a world takes its share of
    each.

    Every global batch holds `batch_size` samples a rank; the rest of an epoch that fills none is
    left out.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """
        - `batch_size`: samples a process and step.
        - `start`: steps already made.
        - `rank`, `world_size`: which of how many processes this is.

        Raises:
            ValueError: an epoch does not fill one batch.
        """
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world_size = world_size
        self.steps_per_epoch = len(data) // (batch_size * world_size)
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"{len(data)} training samples do not fill one batch of {batch_size} on "
                f"{world_size} process(es); lower trainer.batch_size"
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


def training_loader(
    sampler: StepSampler, num_workers: int, *, pin_memory: bool = False
) -> DataLoader:
    """Endless batches of `FitBatch` in the sampler's order."""
    return DataLoader(
        sampler.data.concatenated(),
        batch_sampler=sampler,
        collate_fn=collate_fits,
        **worker_settings(num_workers, pin_memory=pin_memory),
    )
