"""Pictures of known persons, several of each."""
