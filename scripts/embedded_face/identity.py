"""How people differ: MakeHuman's sliders moved at random, and the principal components of that.

The sliders are an artist's. What comes out covers a wide range of faces; it says nothing of how
often a face occurs among people.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from embedded_face.wheel import TARGETS, Wheel

NUM_SHAPE = 80
NUM_TRAIN, NUM_HELD_OUT = 3000, 500
# How often the samples are aligned with their mean anew.
ALIGNMENT_ROUNDS = 3

RACES = ("african", "asian", "caucasian")
GENDERS = ("female", "male")
# Slider positions, 0 to 1, at which an age has targets.
AGES = {"baby": 0.0, "child": 0.1875, "young": 0.5, "old": 1.0}
MUSCLES = {"minmuscle": 0.0, "averagemuscle": 0.5, "maxmuscle": 1.0}
WEIGHTS = {"minweight": 0.0, "averageweight": 0.5, "maxweight": 1.0}
# Ages are drawn from these ranges with these shares: a few children, no babies.
AGE_RANGES = ((0.19, 0.5), (0.42, 0.65), (0.5, 1.0))
AGE_SHARES = (0.12, 0.48, 0.40)

# Standard deviation of the sliders of each folder, which run from -1 to 1.
SLIDER_STD = {
    "head": 0.35,
    "forehead": 0.35,
    "eyebrows": 0.4,
    "eyes": 0.35,
    "nose": 0.35,
    "mouth": 0.35,
    "ears": 0.35,
    "chin": 0.35,
    "cheek": 0.4,
    "neck": 0.25,
    "asym": 0.15,
}
SLIDERS_MOVED = 0.6  # share of the sliders that leave 0 in one person
SIDE_STD = 0.05  # by which the right eye's, ear's or cheek's slider differs from the left's
# Targets that pull one slider in opposite directions end in these.
OPPOSITES = {
    "-decr": "-incr",
    "-down": "-up",
    "-in": "-out",
    "-backward": "-forward",
    "-concave": "-convex",
    "-compress": "-uncompress",
}


class Sliders(NamedTuple):
    """Everything that is drawn at random, and the displacement it causes."""

    fields: np.ndarray  # (M, C, 3), mm
    macro_row: dict[str, int]  # target of race, sex, age or build -> row of `fields`
    low: np.ndarray  # (sliders,), row of `fields` at -1; -1 where the slider only goes up
    high: np.ndarray  # (sliders,)
    std: np.ndarray  # (sliders,)
    left: np.ndarray  # (pairs,), sliders of the left side
    right: np.ndarray  # (pairs,), the same of the right side


class Components(NamedTuple):
    """The shape model, mm, exactly symmetric: each basis is its mirror image or minus that."""

    mean: np.ndarray  # (C, 3)
    basis: np.ndarray  # (NUM_SHAPE, C, 3), one standard deviation each, largest first
    explained: float  # share of the variance of the face
    held_out_mm: np.ndarray  # distances of the face's vertices of new samples to the model


def race_target(race: str, gender: str, age: str) -> str:
    return f"{TARGETS}macrodetails/{race}-{gender}-{age}.target.gz"


def build_target(gender: str, age: str, muscle: str, weight: str) -> str:
    return f"{TARGETS}macrodetails/universal-{gender}-{age}-{muscle}-{weight}.target.gz"


def average_adult(wheel: Wheel, vertices: np.ndarray) -> np.ndarray:  # (V, 3)
    """The body at the middle of all sliders, (V, 3)."""
    average = vertices.copy()
    for gender in GENDERS:
        for race in RACES:
            average += wheel.target(race_target(race, gender, "young"), len(vertices)) / 6
        build = build_target(gender, "young", "averagemuscle", "averageweight")
        average += wheel.target(build, len(vertices)) / 2
    return average


def pair_sliders(names: list[str]) -> list[tuple[str | None, str]]:
    """Target names as sliders (low end, high end), in the order of the names.

    A target without an opposite is a slider of its own that only goes up. Of an asymmetry the
    right side's target is the opposite of the left's.
    """
    known = set(names)
    lows = {}
    for name in names:
        for low, high in {**OPPOSITES, "-l": "-r"}.items():
            opposite = name.removesuffix(low) + high
            if name.endswith(low) and opposite in known:
                lows[opposite] = name
    taken = set(lows.values())
    return [(lows.get(name), name) for name in names if name not in taken]


def read_sliders(wheel: Wheel, combination: csr_array) -> Sliders:  # (C, V)
    """All targets that shape a head, brought to the coarse head's vertices."""
    num_body = combination.shape[1]

    def field(name: str) -> np.ndarray:
        return combination @ wheel.target(name, num_body)

    races = [race_target(r, g, a) for r in RACES for g in GENDERS for a in AGES]
    builds = [
        build_target(g, a, m, w) for g in GENDERS for a in AGES for m in MUSCLES for w in WEIGHTS
    ]
    macro = races + builds
    names, fields = list(macro), [field(name) for name in macro]
    low, high, std, titles = [], [], [], []
    for folder, deviation in SLIDER_STD.items():
        # Asymmetries of the trunk stand in the same folder.
        files = [n for n in wheel.names(f"{TARGETS}{folder}/") if "/asymm-" not in n]
        local = {name.removesuffix(".target.gz"): field(name) for name in files}
        local = {name: values for name, values in local.items() if np.abs(values).max() > 1e-4}
        row = {name: len(names) + k for k, name in enumerate(local)}
        names += local
        fields += local.values()
        for lower, upper in pair_sliders(list(local)):
            low.append(-1 if lower is None else row[lower])
            high.append(row[upper])
            std.append(deviation)
            titles.append(upper)
    sides = [(k, title.replace("/l-", "/r-")) for k, title in enumerate(titles) if "/l-" in title]
    pairs = [(k, titles.index(title)) for k, title in sides if title in titles]
    left, right = np.array(pairs).T
    return Sliders(
        fields=np.stack(fields),
        macro_row={name: k for k, name in enumerate(macro)},
        low=np.array(low),
        high=np.array(high),
        std=np.array(std),
        left=left,
        right=right,
    )


def draw_weights(sliders: Sliders, random: np.random.Generator) -> np.ndarray:
    """One person: the weight of every row of `Sliders.fields`, (M,)."""
    race = random.dirichlet([0.6] * len(RACES))
    male = random.beta(0.4, 0.4)
    first, last = AGE_RANGES[random.choice(len(AGE_RANGES), p=AGE_SHARES)]
    age = _between(random.uniform(first, last), AGES)
    muscle = _between(random.uniform(0.15, 0.85), MUSCLES)
    weight = _between(np.clip(random.normal(0.5, 0.2), 0, 1), WEIGHTS)

    weights = np.zeros(len(sliders.fields))
    for gender, share in zip(GENDERS, (1 - male, male), strict=True):
        for years, of_age in age.items():
            for name, of_race in zip(RACES, race, strict=True):
                weights[sliders.macro_row[race_target(name, gender, years)]] = (
                    share * of_age * of_race
                )
            for m, of_muscle in muscle.items():
                for w, of_weight in weight.items():
                    row = sliders.macro_row[build_target(gender, years, m, w)]
                    weights[row] = share * of_age * of_muscle * of_weight

    count = len(sliders.high)
    position = random.normal(0, 1, count) * sliders.std * (random.random(count) < SLIDERS_MOVED)
    position[sliders.right] = position[sliders.left] + random.normal(0, SIDE_STD, len(sliders.left))
    position = position.clip(-1, 1)
    weights[sliders.high] = position.clip(min=0)
    two_way = sliders.low >= 0
    weights[sliders.low[two_way]] = -position[two_way].clip(max=0)
    return weights


def shape_components(
    sliders: Sliders,
    body: np.ndarray,  # (C, 3), the coarse head at no slider
    adult: np.ndarray,  # (C, 3), symmetric; the samples are brought to its place and size
    align_on: np.ndarray,  # vertices that decide position, turn and size of a sample
    measure_on: np.ndarray,  # vertices whose variance the components explain
    mirror: np.ndarray,  # (C,)
    seed: int = 0,
) -> Components:
    """Principal components of random heads and their mirror images, after Procrustes alignment.

    The mirror images make the covariance fall into a symmetric and an antisymmetric part, which
    are decomposed apart: their components are exact mirror images of themselves, up to the sign.
    """
    random = np.random.default_rng(seed)
    weights = np.stack([draw_weights(sliders, random) for _ in range(NUM_TRAIN + NUM_HELD_OUT)])
    heads = body + np.tensordot(weights, sliders.fields, 1)  # (S, C, 3)
    reference = adult
    for _ in range(ALIGNMENT_ROUNDS):
        heads = align_similar(heads, reference, align_on)
        reference = mirrored_part(heads.mean(0), mirror)
    train, held_out = np.split(heads - reference, [NUM_TRAIN])

    parts = []
    for sign in (1, -1):
        part = mirrored_part(train, mirror, sign)
        rows = part[:, measure_on].reshape(len(part), -1)
        variance, scores = np.linalg.eigh(rows @ rows.T / len(rows))
        scores = scores[:, ::-1][:, :NUM_SHAPE] * np.sqrt(len(rows))
        fields = np.tensordot(scores.T, part, 1) / len(part)
        parts.append((variance[::-1], mirrored_part(fields, mirror, sign)))
    variance = np.concatenate([part[0][:NUM_SHAPE] for part in parts])
    order = np.argsort(variance)[::-1][:NUM_SHAPE]
    basis = np.concatenate([part[1] for part in parts])[order]
    flat = basis.reshape(NUM_SHAPE, -1)
    largest = flat[np.arange(NUM_SHAPE), np.abs(flat).argmax(1)]
    basis *= np.sign(largest)[:, None, None]

    on_face = basis[:, measure_on].reshape(NUM_SHAPE, -1)
    rows = held_out[:, measure_on].reshape(NUM_HELD_OUT, -1)
    rest = rows - (rows @ np.linalg.pinv(on_face)) @ on_face
    return Components(
        mean=reference,
        basis=basis,
        explained=float(variance[order].sum() / sum(part[0].sum() for part in parts)),
        held_out_mm=np.linalg.norm(rest.reshape(NUM_HELD_OUT, -1, 3), axis=-1),
    )


def align_similar(
    heads: np.ndarray,  # (S, C, 3)
    reference: np.ndarray,  # (C, 3)
    index: np.ndarray,
) -> np.ndarray:
    """Each head moved, turned and scaled to lie on the reference as well as its `index` can."""
    source, target = heads[:, index], reference[index]
    source_mean, target_mean = source.mean(1, keepdims=True), target.mean(0)
    centered, aim = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(np.swapaxes(centered, 1, 2) @ aim)
    proper = np.stack([np.ones(len(u)), np.ones(len(u)), np.linalg.det(u @ vt)], -1)
    rotation = (u * proper[:, None]) @ vt
    scale = (singular * proper).sum(1) / (centered**2).sum((1, 2))
    return scale[:, None, None] * ((heads - source_mean) @ rotation) + target_mean


def mirrored_part(
    fields: np.ndarray,  # (..., C, 3)
    mirror: np.ndarray,  # (C,)
    sign: int = 1,
) -> np.ndarray:
    """The part of a field that is its own mirror image, or with -1 minus its mirror image."""
    return (fields + sign * fields[..., mirror, :] * [-1, 1, 1]) / 2


def _between(position: float, anchors: dict[str, float]) -> dict[str, float]:
    """Weights of the anchors a slider position lies between."""
    places = list(anchors.values())
    return {
        name: float(np.interp(position, places, np.eye(len(places))[k]))
        for k, name in enumerate(anchors)
    }
