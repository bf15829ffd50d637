"""Kill commands, damage files: a table of what happens then.

    python scripts/faults.py [--rounds N] [--mutations N] [--seed N] [--only NAME,...] > table.md

Everything is made for it: a small synthetic world, a built set, a network of some steps, its
report. `--rounds` times each command is started until it gets through, killed at random moments by
SIGKILL or SIGTERM; `--mutations` of each sort are made of each kind of file. Status 1 where
anything is wrong, and what is stands under the table. Needs fork, so not Windows.
"""

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

# Forked processes must not wait for threads that are not there.
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchmarks.made_data import make_face
from benchmarks.timing import Sizes
from fault_campaign.kills import Killed, in_child, kill_at_random
from fault_campaign.kinds import kinds
from fault_campaign.mutations import CLEAR, OTHER, SAME, WRONG, limit_memory, mutate
from fault_campaign.verbs import build, evaluate, train, verbs, write_world

FACE = Sizes(vertex_rows=23, vertex_columns=21, shape_bases=5, exp_bases=3)


def make(folder: Path) -> None:
    """What is killed and mutated, by a process that ends: this one must stay without threads."""

    def work(place: Path) -> None:
        write_world(place / "world")
        build(place / "built", world=place / "world")
        train(place / "trained", built=place / "built")
        checkpoint = place / "trained" / "best.pt"
        evaluate(place / "scored", world=place / "world", checkpoint=checkpoint)
        make_face(place / "bfm", FACE)

    if in_child(work, folder, None) != 0:
        sys.exit(f"nothing to damage could be made:\n{Path(f'{folder}.log').read_text()}")


def kill_table(results: list[Killed]) -> list[str]:
    lines = ["| command | done | killed | wrong |", "|---|---|---|---|"]
    for one in results:
        lines.append(f"| {one.verb} | {one.rounds} | {one.kills} | {len(one.faults)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="times each command is done")
    parser.add_argument("--mutations", type=int, default=20, help="of each sort, of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names of commands and kinds, as they begin")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # readers' own words are judged, not their log

    def wanted(name: str) -> bool:
        return options.only is None or name.startswith(tuple(options.only.split(",")))

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        folder, faults = Path(folder), []
        made = folder / "made"
        make(made)
        killed = []
        for verb in verbs(made):
            if wanted(verb.name) and options.rounds:
                (folder / verb.name).mkdir()
                rounds = {"rounds": options.rounds, "seed": options.seed, "say": say}
                killed.append(kill_at_random(verb, folder / verb.name, **rounds))
                faults += killed[-1].faults
        if killed:
            print("\n".join(kill_table(killed)), end="\n\n")
        limit_memory()
        columns = (CLEAR, SAME, OTHER, WRONG)
        if options.mutations:
            print(f"| kind of file | mutations | {' | '.join(columns)} |")
            print("|---|---|---|---|---|---|")
        for kind in kinds(made, folder / "kinds") if options.mutations else ():
            if wanted(kind.name):
                outcomes, wrong = mutate(kind, count=options.mutations, seed=options.seed)
                numbers = " | ".join(str(outcomes[column]) for column in columns)
                print(f"| {kind.name} | {outcomes.total()} | {numbers} |", flush=True)
                faults += wrong
    for fault in faults:
        print(f"\n- {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
