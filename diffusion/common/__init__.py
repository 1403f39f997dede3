"""What every part may use: files, bars, bytes, digests, checks of numbers. Needs no Lightning."""
