"""Samplers by their papers' formulas and k-diffusion's, in float64, to compare ours with."""
