"What a rule is worth."
