"""How a network takes in a condition."""
