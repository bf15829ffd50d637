"""Means of many errors, as plain values: of all images, of yaw bins, without the worst, of balanced
subsets."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from prnet.evaluation.protocol import Protocol


def summarize(errors: Sequence[float], yaws_deg: Sequence[float], protocol: Protocol) -> dict:
    """Means of one metric: of all images, of each bin, and over the bins.

    `std_of_bins` is the population's (ddof 0) over the means of the bins, as 3DDFA reports it: how
    much the pose matters, not how much the images differ. Where a bin has no image both are None,
    since no paper's number is a mean over fewer; `mean_of_bins_used` is over those that have some.
    """
    labels = [protocol.bin_label(yaw_deg) for yaw_deg in yaws_deg]
    values = np.asarray(errors, dtype=np.float64)
    bins = {}
    for label in protocol.bin_labels:
        chosen = values[[own == label for own in labels]]
        bins[label] = {"mean": float(chosen.mean()) if len(chosen) else None, "n": len(chosen)}
    bins_used = [label for label, entry in bins.items() if entry["n"]]
    bin_means = [bins[label]["mean"] for label in bins_used]
    whole = len(bins_used) == len(bins)
    return {
        "mean": float(values.mean()),
        "mean_of_bins": float(np.mean(bin_means)) if whole else None,
        "std_of_bins": float(np.std(bin_means)) if whole else None,
        "bins": bins,
        "bins_used": bins_used,
        "mean_of_bins_used": float(np.mean(bin_means)),
    }


def worst(errors: Mapping[str, float], count: int) -> list[str]:
    """The names of the largest errors; of equal ones the last in the alphabet.

    Raises:
        ValueError: nobody would be left.
    """
    if count >= len(errors):
        raise ValueError(f"protocol.drop_worst: got {count}, there are {len(errors)} images")
    ranked = sorted(errors, key=lambda name: (errors[name], name))
    return ranked[len(ranked) - count :]


def balanced_subsets(
    yaws_deg: Mapping[str, float],  # name -> yaw, in the order of the names
    errors: Mapping[str, Mapping[str, float]],  # metric -> name -> value, of those it is about
    protocol: Protocol,
) -> dict | None:
    """Means over random subsets with as many images of each bin; None where none are wanted.

    The first draw is the subset of the sorted `names`, which `names_sha256` (a line each)
    identifies; it depends on the seed and on names and bins of the images alone. `mean_of_draws`
    tends to the mean of bins, `std_of_draws` is what the choice of a subset moves.
    """
    rule = protocol.balanced
    if rule.per_bin is None:
        return None
    described = {"per_bin": rule.per_bin, "draws": rule.draws, "seed": rule.seed}
    names = list(yaws_deg)
    labels = np.array([protocol.bin_label(yaw_deg) for yaw_deg in yaws_deg.values()])
    members = {label: np.flatnonzero(labels == label) for label in protocol.bin_labels}
    short = [f"{label} has {len(m)}" for label, m in members.items() if len(m) < rule.per_bin]
    if short:
        return {**described, "not_drawn": f"of {rule.per_bin} images a bin, {', '.join(short)}"}
    random = np.random.default_rng(rule.seed)
    drawn = np.array(
        [
            np.concatenate(
                [random.choice(m, rule.per_bin, replace=False) for m in members.values()]
            )
            for _ in range(rule.draws)
        ]
    )
    first = sorted(names[index] for index in drawn[0])
    metrics = {}
    for metric, values in errors.items():
        row = np.array([values.get(name, np.nan) for name in names])
        means = np.nanmean(row[drawn], axis=1)
        metrics[metric] = {
            "mean": float(means[0]),
            "mean_of_draws": float(means.mean()),
            "std_of_draws": float(means.std()),
        }
    digest = hashlib.sha256("\n".join(first).encode()).hexdigest()
    return {**described, "names_sha256": digest, "metrics": metrics, "names": first}
