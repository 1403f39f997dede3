"""What pictures are compared in: extractors, and the features of real pictures."""
