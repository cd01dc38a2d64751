"""Layers between an encoder and a loss: `pooling` and necks, and `heads` of class centers with their
`cosines`."""
