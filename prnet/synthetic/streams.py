"""Random numbers of a sample: one generator a concern, cheap to make and to ask for one number."""

from bisect import bisect_right
from itertools import accumulate

import numpy as np
from numpy.random.bit_generator import ISeedSequence

from prnet.geometry.compiled import cached, inlined

WORD = 0xFFFFFFFF
POOL = 4  # words that all entropy is mixed into
INIT_A, MULT_A, INIT_B, MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
MIX_LEFT, MIX_RIGHT = 0xCA01F9DD, 0x4973F715


class Draws(np.random.Generator):
    """A generator that gives the numbers of its parent, single ones in a fraction of the time:
    numpy looks at every bound and share as at an array."""

    def uniform(self, low=0.0, high=1.0, size=None):
        """As numpy's; bounds of a single one are numbers."""
        if size is None:
            return low + (high - low) * self.random()
        return super().uniform(low, high, size)

    def choice(self, a, size=None, replace=True, p=None, axis=0, shuffle=True):
        """As numpy's, but that shares `p` of a single one are taken to sum to 1."""
        if size is not None:
            return super().choice(a, size, replace, p, axis, shuffle)
        count = a if isinstance(a, int) else len(a)
        if p is None:
            place = int(self.integers(count))
        else:
            ends = list(accumulate(map(float, p)))
            place = bisect_right([end / ends[-1] for end in ends], self.random())
        return place if isinstance(a, int) else a[place]


class _Seeded(ISeedSequence):
    """A seed sequence whose words for PCG64 are known."""

    def __init__(self, words: np.ndarray) -> None:  # (4,), uint64
        self.words = words

    def generate_state(self, n_words, dtype=np.uint32):
        return self.words


def spawned(seed: int, index: int, count: int) -> list[Draws]:
    """PCG64 of the first children of `numpy.random.SeedSequence([seed, index])`, in a seventh of
    its time.

    Raises:
        ValueError: a number is negative or has more than 64 bits.
    """
    if not (0 <= seed < 1 << 64 and 0 <= index < 1 << 64):
        raise ValueError(f"got seed {seed} and index {index}, expected 0 to 2^64 - 1")
    entropy = [word for number in (seed, index) for word in _words(number)]
    entropy += [0] * (POOL - len(entropy))
    states = _children(np.array(entropy, np.uint64), count).view(np.uint64)
    return [Draws(np.random.PCG64(_Seeded(state))) for state in states]


def _words(number: int) -> list[int]:
    """32 bits each, the lowest first."""
    words = [number & WORD]
    while (number := number >> 32) > 0:
        words.append(number & WORD)
    return words


@cached()
def _children(entropy: np.ndarray, count: int) -> np.ndarray:  # (4,), uint64
    """What numpy's SeedSequence of this entropy gives PCG64 for its first children,
    (count, 8) uint32."""
    pool, child = np.zeros(POOL, np.uint64), np.zeros(POOL, np.uint64)
    states = np.zeros((count, 2 * POOL), np.uint32)
    constant = np.uint64(INIT_A)
    for place in range(POOL):
        pool[place], constant = _hashed(entropy[place], constant, MULT_A)
    for source in range(POOL):
        for place in range(POOL):
            if source != place:
                word, constant = _hashed(pool[source], constant, MULT_A)
                pool[place] = _mixed(pool[place], word)
    for number in range(count):
        key = constant
        for place in range(POOL):
            word, key = _hashed(np.uint64(number), key, MULT_A)
            child[place] = _mixed(pool[place], word)
        key = np.uint64(INIT_B)
        for place in range(2 * POOL):
            word, key = _hashed(child[place % POOL], key, MULT_B)
            states[number, place] = word
    return states


@inlined(forceinline=True)
def _hashed(word: int, constant: int, factor: int) -> tuple[int, int]:
    """A word, hashed, and the constant for the next one."""
    word ^= constant
    constant = (constant * np.uint64(factor)) & np.uint64(WORD)
    word = (word * constant) & np.uint64(WORD)
    return word ^ (word >> np.uint64(16)), constant


@inlined(forceinline=True)
def _mixed(left: int, right: int) -> int:
    word = (np.uint64(MIX_LEFT) * left - np.uint64(MIX_RIGHT) * right) & np.uint64(WORD)
    return word ^ (word >> np.uint64(16))
