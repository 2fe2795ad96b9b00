"""A recipe becomes a plan, and a plan is checked, before anything is paid for. Imports no torch."""
