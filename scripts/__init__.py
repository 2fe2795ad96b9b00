"""The command line: parsing of arguments, and nothing else."""
