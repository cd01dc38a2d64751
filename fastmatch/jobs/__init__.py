"Whole jobs."
