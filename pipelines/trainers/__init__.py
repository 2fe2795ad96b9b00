"""Trainers that trl does not have, by what it documents of its own and what seams/contract.py lists beside that."""
