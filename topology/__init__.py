"""Switches, regions, who talks to whom, and the resource groups found from it."""
