"""The generator for `numpy.random.Generator`, apart so that pynn loads without numpy.random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._checks import integer, shown
from ._core import PhiloxState
from .random import RNG, _entropy
from .random import key as key_of

__all__ = ["Philox4x32"]

_KEYS, _COUNTERS = 2**64 - 1, 2**128 - 1  # the greatest


class Philox4x32(np.random.BitGenerator):
    """Philox4x32-10 as a NumPy BitGenerator.

    Parameters
    ----------
    seed : None, int, sequence of ints, SeedSequence, BitGenerator or Generator
        Turned into the key by `pynn.random.key`; the counter starts at 2**96.
    counter : int, optional
        The first counter, 0 to 2**128 - 1; only with `key`.
    key : int, optional
        The key, 0 to 2**64 - 1, in place of a seed; the counter then starts at 0.

    Attributes
    ----------
    state : dict
        Key, counter, the words not yet taken and what NumPy keeps beside them. Assign to restore.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Block c of the stream is ``philox4x32(c, key)``; 32-bit numbers are its words in order, 64-bit
    numbers two words each, the lower first, doubles the upper 53 bits of those. NumPy's own Philox
    has words of 64 bits and gives other numbers. The counter of a seed starts at 2**96 so that no
    block is one of those that `pynn.random` makes elements of under the same seed.

    ``np.random.Generator(Philox4x32(0))`` draws one number after the other. What is to be made in
    parallel, or in parts, comes from `pynn.random.normal` and the others.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn.random import Philox4x32
    >>> Philox4x32(key=0).random_raw() == 0xE169C58D6627E8D5
    True
    >>> rng = np.random.Generator(Philox4x32(0))
    >>> rng.integers(6, size=3).shape
    (3,)
    """

    def __init__(self, seed: RNG = None, *, counter: int | None = None, key: int | None = None):
        if key is None and counter is not None:
            raise TypeError("counter must come with key; got no key")
        if key is not None and seed is not None:
            raise TypeError("seed and key must not both be given; got both")
        start = 1 << 96 if key is None else 0
        if counter is not None:
            start = integer("counter", counter, 0, _COUNTERS)
        if key is not None:
            stream = integer("key", key, 0, _KEYS)
        elif isinstance(seed, np.random.BitGenerator | np.random.Generator):
            stream = key_of(seed)
        else:
            stream = None
        if stream is not None:
            sequence = np.random.SeedSequence(stream)  # for spawn() alone
        elif isinstance(seed, np.random.SeedSequence):
            sequence = seed
        else:
            sequence = np.random.SeedSequence(_entropy(seed, "seed"))
        super().__init__(sequence)
        stream = key_of(sequence) if stream is None else stream
        self._philox = PhiloxState(self.capsule, stream, start)

    @property
    def state(self) -> Mapping[str, Any]:
        """The state, as a dict of plain numbers."""
        with self.lock:
            key, counter, taken, half, word = self._philox.get()
        return {
            "bit_generator": type(self).__name__,
            "state": {"counter": counter, "key": key, "taken": taken},
            "has_uint32": int(half),
            "uinteger": word,
        }

    @state.setter
    def state(self, value: Mapping[str, Any]) -> None:
        if not isinstance(value, dict):
            raise TypeError(f"state must be a dict; got {type(value).__name__}")
        if value.get("bit_generator") != type(self).__name__:
            raise ValueError(f"state must be one of a {type(self).__name__}; got {shown(value)}")
        inner = value.get("state")
        found = []
        for name, most, part in (
            ("key", _KEYS, inner),
            ("counter", _COUNTERS, inner),
            ("taken", 4, inner),
            ("has_uint32", 1, value),
            ("uinteger", 2**32 - 1, value),
        ):
            if not isinstance(part, dict) or name not in part:
                raise ValueError(
                    f"state must have {name!r}, as one that was read; got {shown(value)}"
                )
            found.append(integer(f"{name} in state", part[name], 0, most))
        key, counter, taken, half, word = found
        with self.lock:
            self._philox.set(key, counter, taken, bool(half), word)

    def advance(self, delta: int) -> Philox4x32:
        """Go on by `delta` blocks of four words, backwards if negative; words left over are lost.

        Parameters
        ----------
        delta : int
            Blocks.

        Returns
        -------
        Philox4x32
            This one.
        """
        delta = integer("delta", delta)
        with self.lock:
            key, counter, *_ = self._philox.get()
            self._philox.set(key, (counter + delta) % 2**128, 4, False, 0)
        return self

    def jumped(self, jumps: int = 1) -> Philox4x32:
        """Make another one that is `jumps` times 2**64 blocks ahead.

        Parameters
        ----------
        jumps : int, default 1
            How far.

        Returns
        -------
        Philox4x32
        """
        blocks = integer("jumps", jumps) << 64
        seed: Any = self.seed_seq
        other = type(self)(seed)
        other.state = self.state
        return other.advance(blocks)
