"""Nearest points of a static cloud, found from a bound that is known before.

Letters: M points, T nodes, K neighbours.
"""

from typing import NamedTuple

import numpy as np

from prnet.geometry.compiled import cached, inlined

# Points of a leaf.
LEAF = 8
# Nodes that wait: one a level at most, and halving ends after fewer levels than bits.
STACK = 64
# A bound is a distance that was found before, which another order of sums finds a little larger.
BOUND_MARGIN, LEAST_BOUND = 1 + 1e-9, 1e-300


class SearchTree(NamedTuple):
    """A k-d tree with the box of each node. A node's first child follows it."""

    points: np.ndarray  # (M, 3), float64, leaf by leaf
    order: np.ndarray  # (M,), where they stand in the cloud
    first: np.ndarray  # (T,), of the node's points
    last: np.ndarray  # (T,), behind them
    second_child: np.ndarray  # (T,), 0 for a leaf
    boxes: np.ndarray  # (T, 6), lowest x, y, z and highest


def search_tree(cloud: np.ndarray) -> SearchTree:  # (M, 3), float64
    """The tree of a cloud: halved across its longest side until a leaf is left."""
    most = 4 * len(cloud) // LEAF + 2  # leaves hold half of LEAF or more
    order = np.arange(len(cloud))
    first, last, second_child = (np.zeros(most, np.int64) for _ in range(3))
    boxes = np.zeros((most, 6))
    count = _build(cloud, order, first, last, second_child, boxes)
    nodes = (each[:count] for each in (first, last, second_child, boxes))
    return SearchTree(cloud[order], order, *nodes)


@cached()
def _build(
    cloud: np.ndarray,  # (M, 3)
    order: np.ndarray,  # (M,); written, as are the others
    first: np.ndarray,  # (T,)
    last: np.ndarray,  # (T,)
    second_child: np.ndarray,  # (T,)
    boxes: np.ndarray,  # (T, 6)
) -> int:
    """Number of nodes."""
    count = 0
    # What waits: start, end and the node whose second child it is.
    waiting = np.zeros((STACK, 3), np.int64)
    waiting[0, 1], waiting[0, 2] = len(cloud), -1
    top = 0
    while top >= 0:
        start, end, parent = waiting[top, 0], waiting[top, 1], waiting[top, 2]
        top -= 1
        if parent >= 0:
            second_child[parent] = count
        while True:
            node = count
            count += 1
            first[node], last[node] = start, end
            longest, axis = -1.0, 0
            for side in range(3):
                low = high = cloud[order[start], side]
                for place in range(start + 1, end):
                    value = cloud[order[place], side]
                    low, high = min(low, value), max(high, value)
                boxes[node, side], boxes[node, 3 + side] = low, high
                if high - low > longest:
                    longest, axis = high - low, side
            if end - start <= LEAF:
                break
            middle = (start + end) // 2
            _halve(cloud, order, axis, start, end, middle)
            top += 1
            waiting[top, 0], waiting[top, 1], waiting[top, 2] = middle, end, node
            end = middle
    return count


@inlined()
def _halve(
    cloud: np.ndarray, order: np.ndarray, axis: int, start: int, end: int, middle: int
) -> None:
    """Bring the lower points of a range before its `middle` (Hoare's selection)."""
    low, high = start, end - 1
    while low < high:
        pivot = cloud[order[(low + high) // 2], axis]
        left, right = low, high
        while left <= right:
            while cloud[order[left], axis] < pivot:
                left += 1
            while cloud[order[right], axis] > pivot:
                right -= 1
            if left <= right:
                order[left], order[right] = order[right], order[left]
                left += 1
                right -= 1
        if middle <= right:
            high = right
        elif middle >= left:
            low = left
        else:
            return


@inlined()
def nearest_points(
    tree: SearchTree,
    x: float,
    y: float,
    z: float,
    bound: float,  # squared: K points are no farther; inf: any
    found: np.ndarray,  # (K,), places in `tree.points`, nearest first; written
    squares: np.ndarray,  # (K,), their squared distances; written
    waiting: np.ndarray,  # (STACK,), int64, room to work in
    distances: np.ndarray,  # (STACK,)
) -> None:
    """The K nearest points of the tree."""
    points, _, first, last, second_child, boxes = tree
    worst = len(found) - 1
    squares[:] = bound * BOUND_MARGIN + LEAST_BOUND
    top = 0
    waiting[0], distances[0] = 0, 0.0
    while top >= 0:
        node, apart = waiting[top], distances[top]
        top -= 1
        while apart < squares[worst] and second_child[node]:
            near, far = node + 1, second_child[node]
            apart, apart_far = _to_box(boxes, near, x, y, z), _to_box(boxes, far, x, y, z)
            if apart_far < apart:
                near, far, apart, apart_far = far, near, apart_far, apart
            if apart_far < squares[worst]:
                top += 1
                waiting[top], distances[top] = far, apart_far
            node = near
        if apart >= squares[worst]:
            continue
        for place in range(first[node], last[node]):
            across, down, toward = points[place, 0] - x, points[place, 1] - y, points[place, 2] - z
            squared = across * across + down * down + toward * toward
            if squared >= squares[worst]:
                continue
            rank = worst
            while rank > 0 and squares[rank - 1] > squared:
                squares[rank], found[rank] = squares[rank - 1], found[rank - 1]
                rank -= 1
            squares[rank], found[rank] = squared, place


@inlined(inline="always")
def _to_box(boxes: np.ndarray, node: int, x: float, y: float, z: float) -> float:
    """Squared distance of a point from a node's box."""
    across = max(boxes[node, 0] - x, 0.0, x - boxes[node, 3])
    down = max(boxes[node, 1] - y, 0.0, y - boxes[node, 4])
    toward = max(boxes[node, 2] - z, 0.0, z - boxes[node, 5])
    return across * across + down * down + toward * toward
