"""Grants for every pool of the tree: exact, explainable, safe."""
