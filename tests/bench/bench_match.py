"""The place of `main/match`: the saved matcher, from new listings to their matches.

It compares `matcher.match(listings)` with the same encoders, search and cut called by hand on the same prepared batches, so that the ratio is what the
matcher adds; a second case with `memory=True` compares the peaks. See harness.py for how a bench is written.
"""
