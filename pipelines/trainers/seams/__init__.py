"""The only files that touch private or undocumented members of other packages."""
