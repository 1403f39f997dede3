"""The shell: Lightning around the maths. Nothing outside this package imports it."""
