"""Converters from the official raw formats of the papers' data to JSON lines: config group ``converter``."""
