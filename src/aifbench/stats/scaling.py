"""How throughput grows with the number of clients: the Universal Scalability Law.

    X(N) = lambda N / (1 + sigma (N - 1) + kappa N (N - 1))

lambda is the rate of one client, sigma the share of work that is serial (contention), kappa the cost of
keeping clients consistent with one another (crosstalk), which makes throughput fall beyond
N_max = sqrt((1 - sigma) / kappa). N. J. Gunther, Guerrilla Capacity Planning, Springer 2007, chapters 4 to 6.

Fitted to logarithms: the noise of a rate is in proportion to it. lambda then follows from the other two, and
the fit is one of two parameters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aifbench.stats.intervals import Estimate
from aifbench.stats.student import student_t

Array = NDArray[np.float64]

MIN_LEVELS = 4
MIN_R2 = 0.9
PARAMETERS = 3
_STEPS = 50
_BISECTIONS = 30
_GRID = 33
_ZOOMS = 6
# Clients: a peak beyond is none. Sum of squares: of points that lie on the law but for rounding.
_NO_PEAK = 1e7
_EXACT = 1e-16


@dataclass(frozen=True, slots=True)
class Scaling:
    """A fitted law. Intervals are of 95 %, None on a side without a bound.

    `peak` is N_max, at least 1; None where kappa is 0, without an upper bound where kappa's interval begins
    at 0. `r2` is the share of the variance of throughput that the law explains.
    """

    rate_of_one: Estimate
    sigma: Estimate
    kappa: Estimate
    peak: Estimate | None
    r2: float
    largest: float
    notes: tuple[str, ...] = ()

    def rate(self, clients: float) -> float:
        return self.rate_of_one.value * self.speed_up(clients)

    def speed_up(self, clients: float) -> float:
        """Throughput relative to that of one client."""
        return clients * self.efficiency(clients)

    def efficiency(self, clients: float) -> float:
        """Speed-up per client: 1 while clients do not hinder one another."""
        return 1 / (1 + self.sigma.value * (clients - 1) + self.kappa.value * clients * (clients - 1))

    @property
    def knee(self) -> float | None:
        """The clients at which perfect scaling would reach the most there is; None without a ceiling.

        More than that mostly wait for each other. The ceiling is X(N_max), or lambda / sigma without a peak.
        """
        sigma, kappa = self.sigma.value, self.kappa.value
        if kappa > 0:
            return self.speed_up(_peak(sigma, kappa))
        return 1 / sigma if sigma > 0 else None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the law was not fitted."""

    reason: str


def fit(clients: Sequence[float], rates: Sequence[float]) -> Scaling | Refusal:
    """The law through throughputs `rates` at numbers of `clients`; levels may be repeated, in any order."""
    n, x = np.asarray(clients, np.float64), np.asarray(rates, np.float64)
    if len(n) != len(x):
        raise ValueError(f"{len(n)} numbers of clients and {len(x)} rates")
    if not (np.isfinite(n).all() and np.isfinite(x).all() and (n >= 1).all() and (x > 0).all()):
        return Refusal("each level needs at least one client and a throughput above 0")
    levels = len(np.unique(n))
    if levels < MIN_LEVELS:
        return Refusal(f"{levels} different numbers of clients; {MIN_LEVELS} are needed")
    law = _Law(n, np.log(x / n))
    sigma, kappa = law.best()
    log_rate = law.log_rate(sigma, kappa)
    r2 = _r2(x, n * np.exp(log_rate - law.log_cost(sigma, kappa)))
    if r2 < MIN_R2:
        return Refusal(
            f"the law explains {100 * max(r2, 0.0):.0f} % of the differences, less than {100 * MIN_R2:.0f} %"
        )
    limit = law.limit(sigma, kappa)
    peak = _peak_estimate(law, sigma, kappa, limit, len(n))
    largest = float(n.max())
    spread = math.exp(student_t(len(n) - PARAMETERS) * law.log_rate_error(sigma, kappa))
    rate = math.exp(log_rate)
    return Scaling(
        rate_of_one=Estimate(rate, rate / spread, rate * spread, len(n)),
        sigma=Estimate(sigma, *_interval(sigma, law.least_at_sigma, limit, top=1.0), len(n)),
        kappa=Estimate(kappa, *_interval(kappa, law.least_at_kappa, limit, top=1.0), len(n)),
        peak=peak,
        r2=r2,
        largest=largest,
        notes=_notes(kappa, peak, largest),
    )


class _Law:
    """Squared deviations of ln(X / N) from ln(lambda) - ln(cost), with the best lambda for each cost."""

    def __init__(self, n: Array, log_efficiency: Array) -> None:
        self._a, self._b = n - 1, n * (n - 1)
        self._y = log_efficiency

    def log_cost(self, sigma: float, kappa: float) -> Array:
        return np.log1p(sigma * self._a + kappa * self._b)

    def log_rate(self, sigma: float, kappa: float) -> float:
        return float(np.mean(self._y + self.log_cost(sigma, kappa)))

    def sse(self, sigma: float, kappa: float) -> float:
        return float(np.var(self._y + self.log_cost(sigma, kappa))) * len(self._y)

    def best(self) -> tuple[float, float]:
        """Neither parameter below 0: where the free minimum is outside, the best point of the border."""
        candidates = [(0.0, 0.0)]
        for free in ((True, True), (True, False), (False, True)):
            sigma, kappa = self._descend(*self._start(free), free)
            if sigma >= 0 and kappa >= 0:
                candidates.append((sigma, kappa))
        return min(candidates, key=lambda pair: self.sse(*pair))

    def _start(self, free: tuple[bool, bool]) -> tuple[float, float]:
        """The law made linear: N / X = 1/lambda (1 + sigma (N - 1) + kappa N (N - 1)), least squares."""
        columns = [np.ones_like(self._a)] + [
            c for c, fits in zip((self._a, self._b), free, strict=True) if fits
        ]
        inverse = np.exp(-self._y)
        # Divided by N / X itself, so that deviations are relative as in the fit proper.
        solution = np.linalg.lstsq(np.stack(columns, 1) / inverse[:, None], np.ones_like(inverse))[0]
        if solution[0] <= 0:
            return (1e-2 if free[0] else 0.0), (1e-4 if free[1] else 0.0)
        rest = iter(np.maximum(solution[1:] / solution[0], 1e-9).tolist())
        return (next(rest) if free[0] else 0.0), (next(rest) if free[1] else 0.0)

    def _descend(self, sigma: float, kappa: float, free: tuple[bool, bool]) -> tuple[float, float]:
        """Gauss-Newton with halved steps; never to where the cost is not positive."""
        now = self.sse(sigma, kappa)
        for _ in range(_STEPS):
            cost = 1 + sigma * self._a + kappa * self._b
            columns = [c / cost for c, is_free in zip((self._a, self._b), free, strict=True) if is_free]
            slopes = np.stack([column - column.mean() for column in columns], 1)
            deviations = self._y + np.log(cost)
            step = np.linalg.lstsq(slopes, -(deviations - deviations.mean()))[0].tolist()
            moves = iter(step)
            to_sigma, to_kappa = (next(moves) if is_free else 0.0 for is_free in free)
            share = 1.0
            while share > 1e-6:
                at = sigma + share * to_sigma, kappa + share * to_kappa
                if (1 + at[0] * self._a + at[1] * self._b).min() > 0 and self.sse(*at) <= now:
                    break
                share /= 2
            else:
                break
            gained = now - self.sse(*at)
            (sigma, kappa), now = at, now - gained
            if gained <= 1e-14 * now:
                break
        return sigma, kappa

    def limit(self, sigma: float, kappa: float) -> float:
        """The sum of squares up to which a point is in a parameter's 95 % interval (profile likelihood)."""
        freedom = len(self._y) - PARAMETERS
        least = max(self.sse(sigma, kappa), _EXACT)
        return least * (1 + student_t(freedom) ** 2 / freedom)

    def log_rate_error(self, sigma: float, kappa: float) -> float:
        """The standard error of ln(lambda), by linearisation at the fit."""
        cost = np.exp(self.log_cost(sigma, kappa))
        slopes = np.stack([np.ones_like(cost), -self._a / cost, -self._b / cost], 1)
        variance = self.sse(sigma, kappa) / (len(cost) - PARAMETERS)
        return math.sqrt(variance * float(np.linalg.pinv(slopes.T @ slopes)[0, 0]))

    def least_at_sigma(self, sigma: float) -> float:
        return self._least(lambda t: (np.full_like(t, sigma), t**4))

    def least_at_kappa(self, kappa: float) -> float:
        return self._least(lambda t: (t**2, np.full_like(t, kappa)))

    def least_at_peak(self, peak: float) -> float:
        return self._least(lambda t: (t**2, (1 - t**2) / peak**2))

    def _least(self, curve: Callable[[Array], tuple[Array, Array]]) -> float:
        """The least sum of squares on a curve over t in [0, 1], by ever finer grids around the best point."""
        low, high, least = 0.0, 1.0, math.inf
        for _ in range(_ZOOMS):
            t = np.linspace(low, high, _GRID)
            sigmas, kappas = curve(t)
            cost = sigmas[:, None] * self._a + kappas[:, None] * self._b
            sums = np.var(self._y + np.log1p(cost), axis=1) * len(self._y)
            best = int(np.argmin(sums))
            least = min(least, float(sums[best]))
            low, high = float(t[max(best - 1, 0)]), float(t[min(best + 1, _GRID - 1)])
        return least


def _peak(sigma: float, kappa: float) -> float:
    """N_max, and 1 where each client more takes throughput away."""
    return math.sqrt(max(kappa, 1 - sigma) / kappa)


def _peak_estimate(law: _Law, sigma: float, kappa: float, limit: float, n: int) -> Estimate | None:
    if kappa == 0:
        return None
    peak = _peak(sigma, kappa)
    low, high = _interval(peak, law.least_at_peak, limit, bottom=1.0, top=_NO_PEAK)
    return Estimate(peak, low, high, n)


def _interval(
    value: float, least_at: Callable[[float], float], limit: float, *, bottom: float = 0.0, top: float
) -> tuple[float, float | None]:
    """Where the least sum of squares crosses `limit`, below and above `value`; None for `top` or beyond."""
    low = bottom if least_at(bottom) <= limit else _crossing(least_at, limit, value, bottom)
    outside = max(value, 1e-6)
    while outside < top and least_at(outside) <= limit:
        outside *= 2
    if outside >= top:
        return low, None
    return low, _crossing(least_at, limit, value, outside)


def _crossing(least_at: Callable[[float], float], limit: float, inside: float, outside: float) -> float:
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if least_at(middle) <= limit:
            inside = middle
        else:
            outside = middle
    return outside


def _r2(values: Array, fitted: Array) -> float:
    spread = float(np.sum((values - values.mean()) ** 2))
    return 1 - float(np.sum((values - fitted) ** 2)) / spread if spread > 0 else 0.0


def _notes(kappa: float, peak: Estimate | None, largest: float) -> tuple[str, ...]:
    if kappa == 0 or peak is None:
        return ("throughput did not bend down: no peak can be told from these levels",)
    if peak.high is None:
        return ("whether throughput has a peak at all is within the noise",)
    if peak.value > largest:
        return (f"the peak lies beyond the {largest:g} clients measured: extrapolated",)
    return ()
