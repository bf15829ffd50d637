"""`nme_rec` of many faces, on as many cores as there are.

An ICP of a whole face takes a third of a second, hundreds of times what any other metric does.
"""

import multiprocessing
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np
from tqdm import tqdm

from prnet.evaluation.protocol import ReconstructionRule
from prnet.evaluation.report import ScoredImage
from prnet.metrics.reconstruction import reconstruction_error, reconstruction_unit
from prnet.workers import settle

METRIC = "nme_rec"
# A process takes seconds to start: fewer faces than this are no work for one.
FACES_A_WORKER = 16
# Pairs of clouds that wait in memory for a process.
WAITING_A_WORKER = 4


def workers_for(num_faces: int, cores: int) -> int:
    """How many processes pay for so many faces; 0: none, the faces are scored where they are."""
    workers = min(cores, num_faces // FACES_A_WORKER)
    return workers if workers > 1 else 0


class Reconstructions:
    """Scores faces while the next ones are predicted, and writes each error into its image.

    A context: left with an error it drops what has not begun.
    """

    def __init__(self, rule: ReconstructionRule, *, workers: int = 0) -> None:
        self.rule = rule
        self.most_pending = WAITING_A_WORKER * workers
        self.pool: ProcessPoolExecutor | None = None
        if workers > 0:
            self.pool = ProcessPoolExecutor(
                workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=settle,
                initargs=(0,),
            )
        self.pending: deque[tuple[ScoredImage, Future]] = deque()

    def __enter__(self) -> "Reconstructions":
        return self

    def __exit__(self, *_error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def add(
        self,
        image: ScoredImage,
        prediction: np.ndarray,  # (N, 3), px
        truth: np.ndarray,  # (M, 3), px
        landmarks: np.ndarray | None,  # (68, 3), px, of the truth
        unit: float | None,  # px; None: by the protocol
    ) -> None:
        """Score one face, now or when a process is free."""
        arguments = (self.rule, prediction, truth, landmarks, unit)
        if self.pool is None:
            _write(image, error_or_reason(*arguments))
            return
        if len(self.pending) >= self.most_pending:
            self._collect()
        self.pending.append((image, self.pool.submit(error_or_reason, *arguments)))

    def finish(self, *, progress: bool = True) -> None:
        """Wait for what is still to be scored."""
        bar = {"desc": "reconstruction", "unit": "face"}
        for _ in tqdm(range(len(self.pending)), **bar, disable=not (progress and self.pending)):
            self._collect()

    def _collect(self) -> None:
        """Wait for the face that was sent first."""
        image, future = self.pending.popleft()
        _write(image, future.result())


def error_or_reason(
    rule: ReconstructionRule,
    prediction: np.ndarray,  # (N, 3), px
    truth: np.ndarray,  # (M, 3), px
    landmarks: np.ndarray | None,  # (68, 3), px, of the truth
    unit: float | None,
) -> float | str:
    """Percent, or why there is none: the points of a face may not determine an alignment."""
    try:
        if unit is None:
            unit = reconstruction_unit(rule.normalizer, truth, landmarks)
        return reconstruction_error(rule.metric, prediction, truth, unit=unit, rule=rule.rule)
    except ValueError as error:
        return str(error)


def _write(image: ScoredImage, result: float | str) -> None:
    if isinstance(result, str):
        image.lacking[METRIC] = result
    else:
        image.errors[METRIC] = result
        image.lacking.pop(METRIC, None)
