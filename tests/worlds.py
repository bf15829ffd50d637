"""The synthetic world that the package ships, with changes."""

from prnet.datasets.synthetic import SyntheticRule
from prnet.entry import shipped_dataset
from prnet.synthetic.parameters import World


def shipped_rule(**changes: object) -> SyntheticRule:
    """The rule of configs/dataset/synthetic.yaml with other values of some fields."""
    return SyntheticRule.from_values(shipped_dataset("synthetic"))._replace(**changes)


def shipped_world(**changes: object) -> World:
    """Its world with other values of some fields."""
    return shipped_rule().world._replace(**changes)
