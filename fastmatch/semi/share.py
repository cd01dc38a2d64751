"The interval of a share."


def wilson(
    n_right: int,  # Of `n`
    n: int,
) -> tuple[float, float]:
    "The 95% interval of a share, by Wilson's score; (0, 1) of nothing."
    if not n: return 0., 1.
    from scipy.stats import binomtest
    interval = binomtest(n_right, n).proportion_ci(method='wilson')
    return float(interval.low), float(interval.high)
