"The study floor: searches over training and over rules, kept, compared and drawn."
