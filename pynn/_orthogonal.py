"""Orthonormal columns by Householder reflections, in blocks, on pynn's product.

Every sum over elements is one of `affine`'s, whose order the contract fixes; the rest is
elementwise. So the bits are the same for every instruction set and number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ._backend import functions

Array = npt.NDArray[Any]

_BLOCK = 32  # columns whose reflections are applied together; part of the contract


def orthonormal_columns(a: Array) -> Array:
    """Find Q of a = QR with R's diagonal positive; a is (m, n), m >= n, float64, overwritten.

    Golub and Van Loan, *Matrix Computations*, sections 5.1 and 5.2: reflections H = I - v s v', a
    block of them as I - V T V'.
    """
    product = functions().affine
    m, n = a.shape
    blocks, signs = [], np.ones(n)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        v, t = _reflections(a[start:, start:stop], signs[start:stop])
        rest = a[start:, stop:]
        if rest.size:
            rest -= product(v, product(np.ascontiguousarray(t.T), product(v.T, rest)))
        blocks.append((start, v, t))
    q = np.zeros((m, n))
    np.fill_diagonal(q, signs)
    for start, v, t in reversed(blocks):
        part = q[start:, start:]
        part -= product(v, product(t, product(v.T, part)))
    return q


def _reflections(panel: Array, signs: Array) -> tuple[Array, Array]:
    """Reflect a panel's columns to the axes, one by one; return V and T, and R's signs."""
    product = functions().affine
    m, n = panel.shape
    p = np.array(panel, order="C")
    v, t = np.zeros((m, n)), np.zeros((n, n))
    for j in range(n):
        x = p[j:, j].copy()
        length = math.sqrt(_dot(x, x))
        signs[j] = -1.0 if x[0] >= 0 else 1.0  # of R's diagonal
        x[0] -= signs[j] * length
        square = _dot(x, x)
        scale = 2 / square if square > 0 else 0.0
        v[j:, j] = x
        if j + 1 < n:
            along = product(x[None], p[j:, j + 1 :])
            p[j:, j + 1 :] -= (scale * x)[:, None] * along
        t[j, j] = scale
        if j:
            t[:j, j] = -scale * product(t[:j, :j], product(v[:, :j].T, v[:, j : j + 1]))[:, 0]
    return v, t


def _dot(x: Array, y: Array) -> float:
    return float(functions().affine(x[None], y[:, None])[0, 0])
