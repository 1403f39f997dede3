"""What is in a checkpoint, what of it is trusted, and what a run takes from it."""
