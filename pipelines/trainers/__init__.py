"""Trainers that TRL does not have, by its documented contract: config, compute_loss, data_collator, preparation."""
