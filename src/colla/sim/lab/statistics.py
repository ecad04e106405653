"""What a number of runs says about all runs: shares with their intervals, and quantiles.

The interval of a share is Clopper and Pearson's (Biometrika 26, 1934): it comes from the binomial distribution itself
and covers the true share in *at least* 95 % of experiments, also where the share is near one and the runs are few. Our
targets are lower bounds near one, where Wilson's and the normal interval may cover less than they promise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

CONFIDENCE = 0.95
FRACTION_TERMS_MAX = 1000
FRACTION_EXACT = 1e-14
SMALLEST = 1e-300
HALVINGS = 80


class Share(msgspec.Struct, frozen=True):
    """So many of so many, and the bounds between which the true share lies with 95 % confidence (0 to 1)."""

    count: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share that was seen; of nothing, it is not a number."""
        return self.count / self.of if self.of else math.nan

    def text(self) -> str:
        """`98.2 % (97.1–99.0)`."""
        if not self.of:
            return "–"
        return f"{percent(self.share)} ({percent_digits(self.low)}–{percent_digits(self.high)})"


def share(count: int, of: int, confidence: float = CONFIDENCE) -> Share:
    """The share `count / of` with its Clopper-Pearson interval. Raises `ValueError` unless 0 ≤ count ≤ of."""
    if not 0 <= count <= of:
        raise ValueError(f"{count} of {of} is no share")
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else _beta_quantile(tail, count, of - count + 1)
    high = 1.0 if count == of else _beta_quantile(1 - tail, count + 1, of - count)
    return Share(count, of, low, high)


def percent(value: float) -> str:
    """`98.2 %`; never 100 % unless it is."""
    return f"{percent_digits(value)} %"


def percent_digits(value: float) -> str:
    """`98.2`, with a second digit from 99 on, rounded away from 100."""
    if value >= 1.0:
        return "100"
    if value >= 0.99:
        return f"{math.floor(value * 10_000) / 100:.2f}"
    return f"{value * 100:.1f}"


def quantile(values: Sequence[float], at: float) -> float:
    """The smallest value that at least the share `at` of all values does not exceed; of nothing, not a number."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(at * len(ordered)) - 1)]


def mean(values: Sequence[float]) -> float:
    """The mean; of nothing, not a number."""
    return math.fsum(values) / len(values) if values else math.nan


def _beta_quantile(probability: float, a: float, b: float) -> float:
    """Where the distribution function of Beta(a, b) reaches the probability."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function."""
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        # The fraction converges quickly on this side only.
        return 1.0 - _beta(1.0 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    numerators, denominators = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1) or SMALLEST)
    value = denominators
    for term in range(1, FRACTION_TERMS_MAX):
        even = term * (b - term) * x / ((a + 2 * term - 1) * (a + 2 * term))
        odd = -(a + term) * (a + b + term) * x / ((a + 2 * term) * (a + 2 * term + 1))
        for step in (even, odd):
            denominators = 1.0 / (1.0 + step * denominators or SMALLEST)
            numerators = 1.0 + step / numerators or SMALLEST
            value *= numerators * denominators
        if abs(numerators * denominators - 1.0) < FRACTION_EXACT:
            break
    return value
