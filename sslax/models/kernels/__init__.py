"""Work-arounds for one compiler: the same convolutions and pools, faster on a CPU."""
