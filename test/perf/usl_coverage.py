"""How often the intervals of a fitted scaling law hold the law that made the rates.

Each study draws its own law, noise between 2 and 5 %, and measures 8 numbers of clients 3 times.
"""

import sys

import numpy as np
from test.perf.aa_self_test import Share
from test.perf.claims import options

from aifbench.stats.intervals import Estimate
from aifbench.stats.scaling import Refusal, Scaling, fit

LEVELS = np.array([1, 2, 4, 8, 16, 24, 32, 48], np.float64)
PER_LEVEL = 3
AT_LEAST = 0.93


def one(rng: np.random.Generator) -> tuple[Scaling | Refusal, dict[str, float]]:
    """A fit, and the truth by parameter: a third without contention, another third without crosstalk."""
    rate = float(rng.uniform(50, 5_000))
    sigma = float(rng.choice([0.0, 1.0, 1.0]) * 10 ** rng.uniform(-2.5, -0.5))
    kappa = float(rng.choice([0.0, 1.0, 1.0]) * 10 ** rng.uniform(-4, -2.5))
    n = np.repeat(LEVELS, PER_LEVEL)
    law = rate * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))
    rates = law * np.exp(rng.normal(0, rng.uniform(0.02, 0.05), len(n)))
    peak = float(np.sqrt((1 - sigma) / kappa)) if kappa else float("inf")
    return fit(n.tolist(), rates.tolist()), {
        "rate of one client": rate, "sigma": sigma, "kappa": kappa, "peak": peak,
    }  # fmt: skip


def holds(estimate: Estimate | None, truth: float) -> bool:
    """No peak is an interval without a bound: it says nothing wrong, and is counted apart."""
    if estimate is None:
        return True
    low, high = estimate.low, estimate.high
    return (low is None or low <= truth) and (high is None or truth <= high)


def main() -> int:
    parser = options(__doc__.splitlines()[0], repeats=1_000)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    held = {"rate of one client": 0, "sigma": 0, "kappa": 0, "peak": 0}
    refused = peaks_missed = 0
    for _ in range(given.repeats):
        law, truth = one(rng)
        if isinstance(law, Refusal):
            refused += 1
            continue
        found = (law.rate_of_one, law.sigma, law.kappa, law.peak)
        for (name, true), estimate in zip(truth.items(), found, strict=True):
            held[name] += holds(estimate, true)
        peaks_missed += law.peak is None and truth["peak"] <= LEVELS.max()
    fitted = given.repeats - refused
    shares = [
        Share(f"the interval holds the {name}", n, fitted, at_least=AT_LEAST) for name, n in held.items()
    ]
    shares.append(Share("no peak found although the levels reach it", peaks_missed, fitted))
    shares.append(Share("refused: the law explains too little", refused, given.repeats))
    sys.stdout.write(f"Fitted scaling laws, {given.repeats:,} simulated studies\n")
    sys.stdout.write("".join(f"{share}\n" for share in shares))
    return 0 if all(share.holds for share in shares) else 1


if __name__ == "__main__":
    sys.exit(main())
