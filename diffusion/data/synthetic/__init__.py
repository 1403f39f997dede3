"""Data that is drawn by a program, so that the truth about it is known."""
