"""The command line: Lightning's, with checks, one-line errors, and commands of its own."""
