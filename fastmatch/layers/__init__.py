"""Layers between an encoder and a loss: `pooling` and necks, and `heads` of class centers with their
`cosines`; and what can be put inside an encoder: `attention`, and `instance_norm` beside BatchNorm."""
