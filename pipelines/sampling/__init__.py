"""Completions of prompts and their log-probabilities."""
