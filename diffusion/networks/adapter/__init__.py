"""A picture's tokens for a trained network (IP-Adapter), and InstantID."""
