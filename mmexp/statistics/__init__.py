"""Comparisons with two kinds of noise: training seeds and questions."""
