"A service over a small catalogue."
