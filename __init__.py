"""Trimtab: one recipe chains SFT, reward models, preference optimisation, constrained RLHF and curated retraining."""
