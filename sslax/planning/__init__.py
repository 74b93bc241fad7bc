"""What a run will take: its training step compiled for devices that need not be here."""
