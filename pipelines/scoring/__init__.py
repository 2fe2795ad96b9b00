"""Rewards asked about completions: in a recipe, tried out, and over HTTP."""
