"""A system that learns to write captions, and how well they say what is true."""
