"""What was trained, put to use."""
