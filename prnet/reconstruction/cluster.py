"""Shards made by the cores or cards of a cluster: Ray Data hands pieces to actors, starts one again
that dies, and gives its piece to another."""

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import torch
from tqdm import tqdm

from prnet.checks import require_count
from prnet.files import remove_leftovers, require_folder
from prnet.reconstruction.reconstructor import Reconstructor
from prnet.reconstruction.run import Framer, Settings, find_inputs
from prnet.reconstruction.shards import (
    Counts,
    Piece,
    ShardMaker,
    begin_run,
    plan_pieces,
    write_merged_index,
)
from prnet.reconstruction.video import is_camera

log = logging.getLogger(__name__)

# Ray hands out blocks of pieces; so many at most, or its own books would be the work.
MOST_BLOCKS = 20_000
# It would tell its makers of every run, and the terminal of its own affairs.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


class ClusterOptions(NamedTuple):
    """How a run is spread; moves no number of its results."""

    address: str | None = None  # of a running cluster; None: RAY_ADDRESS, else this machine alone
    actors: int | str = "auto"  # auto: one a core, or as many as share the cards
    cards: float = 0.0  # share of a card that an actor takes; 0: its network runs on a core
    shard_size: int = 1000  # photos
    attempts: int = 3  # a photo that so many processes died of is left out
    merge: bool = True  # faces.json of the whole run; False: the shards' own alone

    def checked(self) -> "ClusterOptions":
        """Itself; raises ValueError for a value out of its range."""
        for name in ("shard_size", "attempts"):
            require_count(f"ray.{name}", getattr(self, name))
        if self.actors != "auto":
            require_count("ray.actors", self.actors)
        if not 0 <= self.cards <= 1:
            raise ValueError(f"ray.cards: got {self.cards}, expected from 0 to 1")
        return self

    def device(self, name: str) -> str:
        """What an actor's network runs on; `name`: what the user chose.

        Raises:
            ValueError: that contradicts `cards`.
        """
        own = "cuda" if self.cards else "cpu"
        if name not in ("auto", own):
            raise ValueError(
                f"device={name}: with engine=ray ray.cards says it, the share of a card that an "
                f"actor takes, and is {self.cards:g}"
            )
        return own

    def runtime(self, name: str) -> str:
        """auto is what every machine has: which runtime is ready differs among them, and so would
        the last digits."""
        return "torch" if name == "auto" else name


class _Actor:
    """One process of the cluster: it loads the network once, and makes shards."""

    def __init__(self, make_maker: Callable[[], ShardMaker]) -> None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        self.maker = make_maker()

    def __call__(self, row: dict) -> dict:
        return self.maker(Piece.of_json(row["piece"]))._asdict()


def reconstruct_on_cluster(
    source: Path | str | None,
    output: Path,
    make_reconstructor: Callable[[], Reconstructor],
    settings: Settings,
    options: ClusterOptions,
    *,
    framer: Framer | None = None,  # None: the detector
    progress: bool = True,
) -> Counts:
    """Write a shard for every `shard_size` photos, or for every tar, of `source`, and faces.json;
    what there is of all of them now.

    Shards that are whole are skipped. `source`, `output`, the checkpoint and this package are there
    on all machines by the same names.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: no cluster at that address.
        ValueError: no `source`, or a camera; as `find_inputs` and `plan_pieces`.
        OSError: a shard cannot be written.
    """
    if source is None:
        raise ValueError("engine=ray: give input=, a folder, a list or tars")
    if is_camera(source):
        raise ValueError(f"input={source}: a camera is followed with engine=local")
    inputs, output = [path.absolute() for path in find_inputs(source)], output.absolute()
    require_folder(output)
    plan = plan_pieces(inputs, output, settings, shard_size=options.shard_size)
    begin_run(output, settings)
    log.info("%d shards, %d of them whole", len(plan.names), len(plan.done))
    make_maker = functools.partial(
        ShardMaker, make_reconstructor, output, settings, framer, attempts=options.attempts
    )
    total = Counts(0, 0, 0)
    if plan.pieces:
        for counts in _made(plan.pieces, make_maker, options, progress=progress):
            total = Counts(*(sum(pair) for pair in zip(total, counts, strict=True)))
    remove_leftovers(output)  # of actors that were killed: nobody writes now
    if options.merge:
        write_merged_index(output, plan.names, settings)
    return total


def _made(
    pieces: list[Piece],
    make_maker: Callable[[], ShardMaker],
    options: ClusterOptions,
    *,
    progress: bool,
) -> Iterator[Counts]:
    """What came of each piece, as they are finished."""
    with _connected(options.address) as ray:
        resources = ray.cluster_resources()
        available = resources.get("GPU", 0) / options.cards if options.cards else resources["CPU"]
        actors = max(1, int(available)) if options.actors == "auto" else options.actors
        actors = min(actors, len(pieces))
        kind = f"{options.cards:g} of a card" if options.cards else "a core"
        log.info("%d actors, %s each, on %d machines", actors, kind, len(ray.nodes()))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        rows = [{"piece": piece.as_json()} for piece in pieces]
        made = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map(
            _Actor,
            fn_constructor_args=(make_maker,),
            # A piece takes minutes: none waits behind another while an actor has nothing to do.
            compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
            num_cpus=1,
            num_gpus=options.cards or None,
        )
        bar = tqdm(total=len(pieces), desc="reconstruct", unit="shard", disable=not progress)
        try:
            with bar:
                for row in made.iter_rows():
                    bar.update()
                    yield Counts(**row)
        except ray.exceptions.RayError as error:
            raise _own_error(error) from error


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator:
    """Ray, connected for the time of the block, if it is not yet."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'engine=ray: {error.name} is not installed; pip install "prnet[scale]"'
        ) from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _own_error(error: Exception) -> Exception:
    """What the program raised in an actor; of Ray's own errors themselves, in a line."""
    cause: BaseException | None = error
    while cause is not None:
        cause = getattr(cause, "cause", None) or cause.__cause__
        if isinstance(cause, ValueError | OSError | ModuleNotFoundError):
            return cause
    return RuntimeError(str(error).strip().rpartition("\n")[2])
