"""The command that writes captions."""
