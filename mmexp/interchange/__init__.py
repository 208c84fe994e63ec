"""Weights that other code released, in our names."""
