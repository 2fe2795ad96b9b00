"""Seams to other packages: what we patch and import in private, and the contract that lists all that is private."""
