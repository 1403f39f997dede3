"""A second, exact condition for a trained network (ControlNet)."""
