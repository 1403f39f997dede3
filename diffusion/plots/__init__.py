"""Pictures of samples and figures. Needs no Lightning."""
