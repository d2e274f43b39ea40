"""Demand as a probability distribution, minutes ahead."""
