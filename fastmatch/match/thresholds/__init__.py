"Exact searches for thresholds."
