"""Names as people give them reach the verbs as they were typed."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf

from prnet.__main__ import VERBS
from prnet.command.arguments import check_arguments
from prnet.command.names import LISTS, LISTS_OF, TEXTS, names_quoted
from prnet.entry import CONFIG_DIR

NAMES = (
    "2",
    "2024",
    "1e5",
    "007",
    "1_000",
    "-3.5",
    "nan",
    "true",
    "epoch=3",
    "photo (1).jpg",
    "[1]",
    "[a,b] c",
    "{x}",
    "a{b:c}",
    "Bilder (2024) ä=1,#",
    "données/été",
    "日本語 #2",
    "it's",
    'a "quoted" name',
    "a 'b",
    "x,y.png",
    "  two blanks ",
    "12:30@home!.mp4",
    "str(2)",
    "run(1)",
    "choice(a,b)",
    "~/a|b&c;d",
    "C:\\new\\(1)\\",
    "$HOME %d 100%",
    "a*[0-9]?.jpg",
)
# What has a meaning of its own keeps it, and so do keys that take no name.
KEPT = (
    "output=plain/name_1.jpg",
    "boxes=null",
    "output=???",
    "output=",
    "output='photo (1).jpg'",
    'output="a,b"',
    "output=a\\,b",
    "output=${data_dir}/x",
    "built=[a,b]",
    "built=[]",
    "built=['x,y',b]",
    "built=null",
    "dataset=aflw2000",
    "seed=3",
    "trainer.batch_size=0x10",
    "outputs=[glb,obj]",
    "smoothing=false",
    "detector.sides=[320,960]",
    "trainer={epochs:3}",
    "~trainer.epochs",
    "--config-dir=a (1)",
    "--multirun",
)
# A comment that says so: the key takes a file or a folder.
TAKES_A_FILE = re.compile(r"^ *([a-z_]+): (?! |#|false|true|\d)[^#]*#.*\b(DIRs?|FILE|PHOTO)\b(?!/)")


def read(argument: str) -> object:
    return OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_reads_its_names_as_they_are(verb):
    """Each of its keys is given another name, through Hydra's own composition."""
    lists = LISTS_OF.get(verb, LISTS)
    default = composed(verb)
    keys = sorted(key for key in TEXTS | lists if has(default, key))
    assert keys
    start = 5 * list(VERBS).index(verb)
    given = {key: NAMES[(start + number) % len(NAMES)] for number, key in enumerate(keys)}
    typed = [
        f"{key}=[{in_a_list(name)},2024]" if key in lists else f"{key}={name}"
        for key, name in given.items()
    ]
    words = names_quoted(verb, typed)
    assert names_quoted(verb, words) == words  # what is quoted stays
    check_arguments(verb, words)
    cfg = composed(verb, *words)
    for key, name in given.items():
        expected = [name.strip(), "2024"] if key in lists else name
        assert OmegaConf.select(cfg, key) == expected


def in_a_list(name: str) -> str:
    """There, commas are between names, and one that has some is quoted."""
    return f"'{name}'" if "," in name else name


def composed(verb: str, *words: str) -> DictConfig:
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose(verb, overrides=list(words))


def has(cfg: DictConfig, key: str) -> bool:
    node, _, last = key.rpartition(".")
    parent = OmegaConf.select(cfg, node) if node else cfg
    return isinstance(parent, DictConfig) and last in parent.keys()  # noqa: SIM118 - ??? is one


@pytest.mark.parametrize("name", NAMES)
def test_a_name_and_a_list_of_names(name):
    (one,) = names_quoted("reconstruct", [f"input={name}"])
    assert read(one) == name
    (added,) = names_quoted("eval", [f"++predictions={name}"])
    assert added.startswith("++predictions=")
    assert read(added) == name
    if "," not in name:
        (several,) = names_quoted("compare", [f"predictions=[{name},plain, {name}]"])
        assert read(several) == [name.strip(), "plain", name.strip()]


@pytest.mark.parametrize("argument", KEPT)
def test_all_else_stays_as_it_is(argument):
    assert names_quoted("train", [argument]) == [argument]


def test_sweeps_are_hydras():
    for argument in ("output=a,b", "built=a,b", "output=choice(a,b)"):
        assert names_quoted("train", [argument], sweeps=True) == [argument]
    # Of a list it cannot be told which is meant, and Hydra says so; one name may have a comma.
    assert names_quoted("train", ["built=a,b"]) == ["built=a,b"]
    assert names_quoted("train", ["init=a,b", "init=2"]) == ['init="a,b"', 'init="2"']


def test_one_name_is_a_list_where_lists_are_taken():
    assert names_quoted("show", ["dataset.subsets=AFW"]) == ["dataset.subsets=[AFW]"]
    assert names_quoted("compare", ["predictions=2024"]) == ['predictions=["2024"]']
    assert names_quoted("eval", ["predictions=2024"]) == ['predictions="2024"']


def test_every_key_that_takes_a_file_or_folder_is_known():
    known = {key.rpartition(".")[2] for key in TEXTS | LISTS}
    found = set()
    for path in Path(CONFIG_DIR).rglob("*.yaml"):
        for line in path.read_text().splitlines():
            match = TAKES_A_FILE.match(line)
            found |= {match[1]} if match else set()
    assert len(found) > 15
    assert found <= known


def test_default_lists_are_lists():
    """A key whose default is a list of names is none of those that take one."""
    for verb in VERBS:
        cfg = OmegaConf.load(Path(CONFIG_DIR, f"{verb}.yaml"))
        for key in cfg:
            if isinstance(cfg._get_node(key), ListConfig):
                assert key not in TEXTS or key in LISTS_OF.get(verb, ())
