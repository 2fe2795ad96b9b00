"""What a step leaves behind: its artifact and its metrics."""
