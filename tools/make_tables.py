"""Makes csrc/tables.hpp: the piecewise polynomials of the float32 activations, by Remez' exchange in mpmath.

A row serves a in [low, low + width) with a + offset in one of 2**bits parts of an octave, and holds the polynomial's
coefficients in d = a - centre, the first in two parts. `python tools/make_tables.py > csrc/tables.hpp`
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import mpmath as mp
import numpy as np

mp.mp.dps = 50
DEGREE, ROWS = 6, 32
HALF_OCTAVES_DEGREE, HALF_OCTAVES = 8, 8


class Table(NamedTuple):
    """Of up to two functions: the second, if there is one, is for x > 0."""

    name: str
    formula: str
    offset: int
    bits: int  # parts of an octave, log2
    functions: tuple  # (f, greatest a)
    least: float = 0  # errors are relative to no less than this, where a function crosses 0
    first_bits: int = 24  # of the first coefficient's high part


class HalfOctaves(NamedTuple):
    """Of a function whose value at each row's centre, near its middle, is a float32 number."""

    name: str
    formula: str
    f: Callable
    ends: tuple  # of the rows, from 0: a + 1 in a half octave
    odd: bool = False  # near 0, f(a) / a - 1 about 0


def sigmoid(a):
    return 1 / (1 + mp.exp(-a))


def normal_tail(a):
    """Phi(-a) exp(a^2 / 2)"""
    return mp.erfc(a / mp.sqrt(2)) / 2 * mp.exp(a * a / 2)


def mish_gate(x):
    return mp.tanh(mp.log1p(mp.exp(x)))


def mish_slope(x):
    return mish_gate(x) + x * sigmoid(x) * mp.sech(mp.log1p(mp.exp(x))) ** 2


def gelu_slope(x):
    return mp.ncdf(x) + x * mp.npdf(x)


def gated_slope(x, z, w):
    """The derivative of x sigmoid(z), with w = x dz/dx."""
    return sigmoid(z) * (1 + w * sigmoid(-z))


def silu_slope(x):
    return gated_slope(x, x, x)


QUICK = mp.mpf("1.702")


def tanh_argument(x):
    """Twice that of gelu_tanh's tanh"""
    return 2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)


def gelu_tanh_slope(x):
    z = tanh_argument(x)
    return gated_slope(x, z, z + 4 * mp.sqrt(2 / mp.pi) * mp.mpf("0.044715") * x**3)


def or_limit(f, limit):
    """f, and its value for a = 0, where the formula says 0 / 0."""
    return lambda a: f(a) if a else mp.mpf(limit)


TABLES = [
    Table("tanh_table", "tanh(a) / a", 1, 3, ((or_limit(lambda a: mp.tanh(a) / a, 1), 10),)),
    Table(
        "tanh_shrink_table",
        "(a - tanh(a)) / a^3",
        1,
        3,
        ((or_limit(lambda a: (a - mp.tanh(a)) / a**3, mp.mpf(1) / 3), 10),),
    ),
    Table("expm1_table", "(1 - e^-a) / a", 2, 3, ((or_limit(lambda a: -mp.expm1(-a) / a, 1), 20),)),
    Table(
        "gelu_table",
        "Phi(-a) e^(a^2 / 2); Phi(a)",
        1,
        2,
        ((normal_tail, 16), (mp.ncdf, 6)),
        first_bits=12,
    ),
    Table(
        "gelu_slope_table",
        "the slope at -a, times e^(a^2 / 2); the slope at a",
        4,
        3,
        ((lambda a: gelu_slope(-a) * mp.exp(a * a / 2), 16), (gelu_slope, 6)),
        1 / 8,
    ),
    Table(
        "mish_table",
        "mish(-a) / -a, times e^a; mish(a) / a",
        1,
        2,
        ((lambda a: mish_gate(-a) * mp.exp(a), 22), (mish_gate, 10.5)),
    ),
    Table(
        "mish_slope_table",
        "the slope at -a, times e^a; the slope at a",
        1,
        2,
        ((lambda a: mish_slope(-a) * mp.exp(a), 22), (mish_slope, 10.5)),
        1 / 8,
    ),
    Table(
        "silu_slope_table",
        "the slope at -a, times e^a",
        2,
        3,
        ((lambda a: silu_slope(-a) * mp.exp(a), 22),),
        1 / 8,
    ),
    Table(
        "quick_gelu_slope_table",
        "the slope at -a, times e^(1.702 a)",
        1,
        3,
        ((lambda a: silu_slope(-QUICK * a) * mp.exp(QUICK * a), 13),),
        1 / 8,
    ),
    Table(
        "gelu_tanh_slope_table",
        "the slope at -a, times e^z, z = 2 sqrt(2 / pi) (a + 0.044715 a^3)",
        2,
        3,
        ((lambda a: gelu_tanh_slope(-a) * mp.exp(tanh_argument(a)), 11.75),),
        1 / 8,
    ),
    Table(
        "softplus_table",
        "softplus(-a) e^a; softplus(a)",
        2,
        2,
        (
            (lambda a: mp.log1p(mp.exp(-a)) * mp.exp(a), 22),
            (lambda a: a + mp.log1p(mp.exp(-a)), 22),
        ),
    ),
]


HALF_OCTAVE_TABLES = [
    HalfOctaves("tanh_halves", "tanh(a)", mp.tanh, (0, 0.5, 1, 2, 3, 5, 7, 9.25), odd=True)
]


def intervals(table, greatest):
    """(low, width) of the rows up to a = greatest."""
    w = mp.mpf(table.offset)
    while w - table.offset <= greatest:
        width = mp.mpf(2) ** (mp.floor(mp.log(w, 2)) - table.bits)
        yield w - table.offset, width
        w += width


def minimax(f, centre, half, fixed, least):
    """Coefficients beyond those fixed, of f(centre + d) for |d| <= half, least greatest relative error."""
    n = DEGREE + 1 - len(fixed)
    points = [half * mp.cos(mp.pi * (2 * i + 1) / (2 * n + 2)) for i in range(n + 1)]
    grid = [half * mp.cos(mp.pi * i / 60) for i in range(61)]
    values = {d: f(centre + d) for d in grid}
    for _ in range(4):
        a, b = mp.matrix(n + 1, n + 1), mp.matrix(n + 1, 1)
        for i, d in enumerate(points):
            v = values.get(d) or f(centre + d)
            for j in range(n):
                a[i, j] = d ** (j + len(fixed))
            a[i, n] = (-1) ** i * max(abs(v), least)
            b[i] = v - mp.polyval(fixed[::-1], d) if fixed else v
        solved = list(mp.lu_solve(a, b))[:n]
        coefficients = fixed + solved
        error = [
            (mp.polyval(coefficients[::-1], d) - values[d]) / max(abs(values[d]), least)
            for d in grid
        ]
        # the greatest error of each run of one sign
        runs = []
        for d, e in zip(grid, error):
            if runs and (e > 0) == (runs[-1][-1][1] > 0):
                runs[-1].append((d, e))
            else:
                runs.append([(d, e)])
        extremes = [max(run, key=lambda p: abs(p[1]))[0] for run in runs]
        if len(extremes) != n + 1:
            break
        points = extremes
    return coefficients


def rounded(x, bits):
    mantissa, exponent = mp.frexp(x)
    return np.float32(mp.ldexp(mp.nint(mp.ldexp(mantissa, bits)), exponent - bits))


def row(f, low, width, least, first_bits):
    centre, half = low + width / 2, width / 2
    fixed = []
    for _ in range(2):  # c1, then the rest with c1 as float32 has it; c0 has two parts
        coefficients = minimax(f, centre, half, fixed, least)
        c0 = rounded(coefficients[0], first_bits)
        c0_low = np.float32(coefficients[0] - mp.mpf(float(c0)))
        fixed = [
            mp.mpf(float(c0)) + mp.mpf(float(c0_low)),
            mp.mpf(float(np.float32(coefficients[1]))),
        ]
    coefficients = minimax(f, centre, half, fixed, least)
    stored = [mp.mpf(float(np.float32(c))) for c in coefficients[1:]]
    ds = [half * mp.mpf(i) / 20 for i in range(-20, 21)]
    error = max(
        abs(mp.polyval(stored[::-1], d) * d + fixed[0] - f(centre + d))
        / max(abs(f(centre + d)), least)
        for d in ds
    )
    return [c0, c0_low, *map(np.float32, coefficients[1:])], error


def centre_of(f, low, high):
    """A float32 number near the middle where f is nearest to another."""
    middle, reach = (low + high) / 2, (high - low) / 12
    ends = sorted(f(a) for a in (middle + reach, middle - reach))
    unit = mp.ldexp(1, mp.frexp(ends[0])[1] - 24)
    first, last = int(mp.ceil(ends[0] / unit)), int(mp.floor(ends[1] / unit))
    best = (1,)
    for n in range(first, last + 1, max(1, (last - first) // 300)):
        inverse = mp.findroot(
            lambda a, n=n: f(a) - n * unit, (middle - reach, middle + reach), solver="anderson"
        )
        centre = mp.mpf(float(np.float32(inverse)))
        best = min(best, (abs(f(centre) / (n * unit) - 1), centre, n * unit))
    return best[1:]


def weighted_minimax(g, weight, low, high, n):
    """n coefficients of g(d) for low <= d <= high, least greatest error times weight(d)."""
    middle, half, last = (low + high) / 2, (high - low) / 2, 150
    grid = [middle + half * mp.cos(mp.pi * i / last) * mp.mpf("0.9999999") for i in range(last + 1)]
    values, weights = [g(d) for d in grid], [weight(d) for d in grid]
    points = [round(last * i / n) for i in range(n + 1)]
    for _ in range(6):
        a, b = mp.matrix(n + 1, n + 1), mp.matrix(n + 1, 1)
        for i, k in enumerate(points):
            for j in range(n):
                a[i, j] = grid[k] ** j
            a[i, n], b[i] = (-1) ** i / weights[k], values[k]
        coefficients = list(mp.lu_solve(a, b))[:n]
        errors = [
            (mp.polyval(coefficients[::-1], d) - v) * w
            for d, v, w in zip(grid, values, weights, strict=True)
        ]
        runs = []
        for k, e in enumerate(errors):
            if runs and (e > 0) == (errors[runs[-1][-1]] > 0):
                runs[-1].append(k)
            else:
                runs.append([k])
        points = [max(run, key=lambda k: abs(errors[k])) for run in runs]
        while len(points) > n + 1:
            points.pop(0 if abs(errors[points[0]]) < abs(errors[points[-1]]) else -1)
        if len(points) < n + 1:
            break
    return coefficients


def half_octave(table, i):
    """Centre, value, the coefficients of (f - value) / d; and the greatest relative error."""
    low, high, f = mp.mpf(table.ends[i]), mp.mpf(table.ends[i + 1]), table.f
    odd = table.odd and i == 0
    centre, value = (mp.mpf(0), mp.mpf(0)) if odd else centre_of(f, low, high)

    def fitted(first):
        """Coefficients as float32 has them: the first ones given, the others for these."""
        total = [value, *first]
        k = len(total)
        coefficients = weighted_minimax(
            lambda d: (f(centre + d) - mp.polyval(total[::-1], d)) / d**k,
            lambda d: abs(d) ** k / f(centre + d),
            low - centre,
            high - centre,
            HALF_OCTAVES_DEGREE + 1 - k,
        )
        return [*first, *(mp.mpf(float(np.float32(c))) for c in coefficients)]

    def error(coefficients):
        ds = [low - centre + (high - low) * mp.mpf(2 * j + 1) / 80 for j in range(40)]
        return max(abs(mp.polyval([*coefficients[::-1], value], d) / f(centre + d) - 1) for d in ds)

    if odd:
        best = fitted([mp.mpf(1)])
        return [centre, value, mp.mpf(0), *best[1:]], error(best)
    free = fitted([])
    best = min(free, fitted(free[:1]), key=error)
    return [centre, value, *best], error(best)


def literal(x):
    if x == 0:
        return "0"
    text = float(x).hex()
    mantissa, exponent = text.split("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}f"


def main():
    print(
        "// Piecewise polynomials of float32 functions, by row: an interval of a, the coefficients of d = a - its centre, the\n"
        "// constant one in two parts. Made by tools/make_tables.py; errors are relative.\n"
        "#pragma once\n\n#include <cstddef>\n\nnamespace pynn {\n\n"
        f"inline constexpr std::size_t table_rows = {ROWS}, table_columns = {DEGREE + 2};\n\n"
        "struct Table {\n"
        "    int offset, bits;     // row: of a + offset, its exponent and so many bits of its mantissa\n"
        "    int second;           // the first row for x > 0, where it differs\n"
        "    float greatest[2];    // the greatest a of both\n"
        "    float rows[table_rows][table_columns];\n"
        "};\n"
    )
    for table in TABLES:
        rows, starts, worst = [], [], mp.mpf(0)
        for f, greatest in table.functions:
            starts.append(len(rows))
            for low, width in intervals(table, greatest):
                coefficients, error = row(f, low, width, table.least, table.first_bits)
                rows.append(coefficients)
                worst = max(worst, error)
        assert len(rows) <= ROWS, (table.name, len(rows))
        print(f"{table.name}: {len(rows)} rows, 2^{float(mp.log(worst, 2)):.1f}", file=sys.stderr)
        greatest = [float(g) for _, g in table.functions]
        print(f"// {table.formula}; 2^{float(mp.log(worst, 2)):.1f}")
        print(f"inline constexpr Table {table.name} = {{")
        print(
            f"    {table.offset}, {table.bits}, {starts[-1]}, {{{greatest[0]:g}, {greatest[-1]:g}}},\n    {{"
        )
        for r in rows:
            print(f"        {{{', '.join(map(literal, r))}}},")
        print("    },\n};\n")
    print(
        "// Of a, by half octaves of a + 1: row i is what that number's bits >> 22, modulo 8, say. Each column is a vector to look\n"
        "// up in: the centre, the value there, the coefficients of (f - value) / d. Not inline: kernels take their address, and\n"
        "// two objects must not share a symbol.\n"
        f"inline constexpr std::size_t half_octave_columns = {HALF_OCTAVES_DEGREE + 2};\n"
        f"using HalfOctaves = float[half_octave_columns][{HALF_OCTAVES}];\n"
    )
    for table in HALF_OCTAVE_TABLES:
        columns = [[mp.mpf(0)] * HALF_OCTAVES for _ in range(HALF_OCTAVES_DEGREE + 2)]
        worst = mp.mpf(0)
        for i in range(len(table.ends) - 1):
            numbers, error = half_octave(table, i)
            print(f"{table.name} {i}: 2^{float(mp.log(error, 2)):.1f}", file=sys.stderr)
            worst = max(worst, error)
            for column, number in zip(columns, numbers, strict=True):
                column[(i + 6) % HALF_OCTAVES] = number
        print(
            f"// {table.formula}{', near 0 f(a) / a - 1' if table.odd else ''}; 2^{float(mp.log(worst, 2)):.1f}"
        )
        print(f"constexpr HalfOctaves {table.name} = {{")
        for column in columns:
            print(f"    {{{', '.join(map(literal, column))}}},")
        print("};\n")
    print("} // namespace pynn")


main()
