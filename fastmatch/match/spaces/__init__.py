"""Spaces: the modalities that can be searched for neighbors, one kind a file. base.py says what a space
must offer."""
