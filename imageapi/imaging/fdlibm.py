"""The cosine that JavaScript engines compute, to the last bit.

A ThumbHash of a plain colour holds the rounding errors of its sums, so that only the very cosine of
the reference gives the very hash. The C library's differs in every twentieth last bit.

Source: fdlibm 5.3, e_rem_pio2.c, k_cos.c, k_sin.c (as in V8's ieee754.cc), for 0 ≤ x < 100.
"""

from __future__ import annotations

import struct

_COS = (
    4.16666666666666019037e-02,
    -1.38888888888741095749e-03,
    2.48015872894767294178e-05,
    -2.75573143513906633035e-07,
    2.08757232129817482790e-09,
    -1.13596475577881948265e-11,
)
_SIN = (
    -1.66666666666666324348e-01,
    8.33333333332248946124e-03,
    -1.98412698298579493134e-04,
    2.75573137070700676789e-06,
    -2.50507602534068634195e-08,
    1.58969099521155010221e-10,
)
_TWO_OVER_PI = 6.36619772367581382433e-01
# π/2 in pieces of 33 bits, and what is left of it after each
_HALF_PI_1, _HALF_PI_1_REST = 1.57079632673412561417e00, 6.07710050650619224932e-11
_HALF_PI_2, _HALF_PI_2_REST = 6.07710050630396597660e-11, 2.02226624879595063154e-21
_QUARTER_PI = 0x3FE921FB


def cos(x: float) -> float:
    """The cosine of x, 0 ≤ x < 100."""
    if _high(x) <= _QUARTER_PI:
        return _kernel_cos(x, 0.0)
    quarter = int(x * _TWO_OVER_PI + 0.5)
    rest, rounding = _remainder(x, quarter)
    turned = quarter & 3
    value = _kernel_sin(rest, rounding) if turned & 1 else _kernel_cos(rest, rounding)
    return -value if turned in (1, 2) else value


def _high(x: float) -> int:
    """The upper word of a double, without its sign."""
    return int.from_bytes(struct.pack(">d", x)[:4], "big") & 0x7FFFFFFF


def _remainder(x: float, quarter: int) -> tuple[float, float]:
    """What is left of x less so many quarter turns, in two parts."""
    rest, small = x - quarter * _HALF_PI_1, quarter * _HALF_PI_1_REST
    result = rest - small
    if (_high(x) >> 20) - (_high(result) >> 20) > 16:  # too many bits cancelled out
        before, small = rest, quarter * _HALF_PI_2
        rest = before - small
        small = quarter * _HALF_PI_2_REST - ((before - rest) - small)
        result = rest - small
    return result, (rest - result) - small


def _kernel_cos(x: float, rounding: float) -> float:
    high = _high(x)
    z = x * x
    c1, c2, c3, c4, c5, c6 = _COS
    r = z * (c1 + z * (c2 + z * (c3 + z * (c4 + z * (c5 + z * c6)))))
    if high < 0x3FD33333:
        return 1.0 - (0.5 * z - (z * r - x * rounding))
    part = 0.28125
    if high <= 0x3FE90000:
        part = float(struct.unpack(">d", struct.pack(">II", high - 0x00200000, 0))[0])
    return (1.0 - part) - ((0.5 * z - part) - (z * r - x * rounding))


def _kernel_sin(x: float, rounding: float) -> float:
    z = x * x
    v = z * x
    s1, s2, s3, s4, s5, s6 = _SIN
    r = s2 + z * (s3 + z * (s4 + z * (s5 + z * s6)))
    return x - ((z * (0.5 * rounding - v * r) - rounding) - v * s1)
