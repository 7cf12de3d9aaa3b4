"""Comparisons: many runs over pairs, betas, seeds and methods, and the paper's tables of them."""
