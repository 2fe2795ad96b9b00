"""Recipes of other programs become recipes of Trimtab, each key accounted for; nothing that is read is executed."""
