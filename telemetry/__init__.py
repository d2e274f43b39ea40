"""Samples, the window the planner reads, and the store that outlives it."""
