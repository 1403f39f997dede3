"""What samples are asked for: classes, prompts, pictures."""
