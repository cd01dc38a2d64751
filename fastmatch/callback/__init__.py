"""fastai callbacks: flat minima, adversarial training, averaged weights, mixing, hard rows, guards, resuming,
and validation by groups.

They are imported from their files, e.g. `from fastmatch.callback.sharpness import SAM`, or all at once from
`fastmatch.all`.
"""
