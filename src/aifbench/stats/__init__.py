"""Numbers in, numbers out: histograms, intervals and steady-state detection, on numpy alone."""
