"What runs a study."
