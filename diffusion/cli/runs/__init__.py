"""What a run has around it: its folder, its loggers, and how it ends."""
