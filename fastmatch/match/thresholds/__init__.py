"Exact searches for the thresholds with the best mean row F1."
