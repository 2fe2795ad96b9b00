"""What every trainer-backed stage shares."""
