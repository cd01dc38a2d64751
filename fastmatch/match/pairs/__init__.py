"A classifier over pairs of listings: what a pair looks like, what is learned from it, how it is saved."
