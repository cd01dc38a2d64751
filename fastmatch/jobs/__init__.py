"Whole jobs from a table of listings to files: what the commands of `fastmatch` call, and notebooks may."
