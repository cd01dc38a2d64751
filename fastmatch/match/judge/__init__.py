"What a rule is worth: scores row by row, the held-out protocol, and comparisons of two ways."
