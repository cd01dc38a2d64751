"Listings in, `DataLoaders` out: checks, splits, samplers and the embedded sample."
