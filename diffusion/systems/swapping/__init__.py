"""Face swapping: a generator trained against a critic, and what is measured of swaps."""
