"""What can be trained: LightningModules around the mathematics."""
