"Steps of a rule."
