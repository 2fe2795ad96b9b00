"""Datasets: the forms that stages read, loading, the audit, and the tiny world."""
