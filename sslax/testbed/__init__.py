"""The test bed: rendered scenes as files for any program, and scores of what it predicts."""
