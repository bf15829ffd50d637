"""What is killed and mutated: a small frozen world, and the commands on it."""

import functools
from pathlib import Path

from hydra import compose, initialize_config_dir

from fault_campaign.kills import Verb
from prnet import eval as evaluation
from prnet.building import packing
from prnet.building.archives import BuildOptions, build_archive
from prnet.building.frozen_worlds import freeze
from prnet.datasets.synthetic import SyntheticRule
from prnet.entry import CONFIG_DIR, shipped_dataset
from prnet.faces.loading import FaceFiles
from prnet.train import read_settings, run

SMALL_SHARD = 2  # samples: more moments between two shards
SAMPLES, TEST_SAMPLES = 12, 6
PICTURE_SIZE = 96  # px


def write_world(place: Path) -> None:
    """A world of some samples, a test set and a scan."""
    rule = SyntheticRule.from_values(shipped_dataset("synthetic"))
    rule = rule._replace(size=PICTURE_SIZE)
    freeze(rule, place, count=SAMPLES, test_count=TEST_SAMPLES, scans=1, workers=0)


def build(place: Path, *, world: Path) -> None:
    packing.SHARD_SIZE = SMALL_SHARD
    build_archive(
        ["Synthetic"],
        data_dir=world,
        output=place,
        face_files=FaceFiles("embedded"),
        options=BuildOptions("300w_lp", maps=True),
        workers=0,
    )


def train(place: Path, *, built: Path) -> None:
    """Six steps of a small network; goes on from last.pt where there is one."""
    words = ["face=embedded", f"built={built}", "model=compact", "augment=prn", "device=cpu"]
    words += ["model.network.input_side=32", "model.network.width=2", "model.network.rank=8"]
    words += ["model.network.grid=16", "trainer.batch_size=4", "trainer.max_steps=6"]
    words += ["trainer.epochs=100", "trainer.save_every=1", "trainer.validate_every=1.5"]
    words += ["validation_fraction=0.2", "trainer.average=0.9"]
    if (place / "last.pt").is_file():
        words.append(f"resume={place / 'last.pt'}")
    place.mkdir(parents=True, exist_ok=True)
    run(read_settings(configured("train", words)), place)


def evaluate(place: Path, *, world: Path, checkpoint: Path) -> None:
    evaluation.made_now = lambda _verb: {"prnet": "", "date": ""}  # which two runs differ in
    words = ["dataset=aflw2000", f"data_dir={world}", "face=embedded", "device=cpu"]
    words += [f"checkpoint={checkpoint}", f"report={place / 'report.json'}", "batch_size=2"]
    words += [f"save_predictions={place / 'predictions'}"]
    evaluation.run_evaluation(configured("eval", words), place)


def configured(verb: str, words: list[str]) -> object:
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose(verb, overrides=words)


def verbs(made: Path) -> list[Verb]:
    """`made` holds `world`, `built` and `trained`."""
    world = made / "world"
    return [
        Verb("freeze", write_world, ("300W_LP/**/*.*", "AFLW2000/*.*", "attention/**/*.png")),
        Verb(
            "build",
            functools.partial(build, world=world),
            ("build.json", "format.json", "records.npy", "pictures/*.bin", "maps/**/*.npy"),
        ),
        Verb(
            "train",
            functools.partial(train, built=made / "built"),
            ("last.pt", "best.pt"),
            written_once=False,
        ),
        Verb(
            "eval",
            functools.partial(evaluate, world=world, checkpoint=made / "trained" / "best.pt"),
            ("report.json", "report.md", "report_ced.csv", "predictions/*.npz"),
        ),
    ]
