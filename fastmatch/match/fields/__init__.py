"""Columns of a table as spaces: codes, categories, numbers and texts, one kind a file.

A similarity is NaN where one of the two listings has nothing in the column: missing is unknown, not unequal.
"""
