"""Weights, samplers and folders of Hugging Face's diffusers."""
