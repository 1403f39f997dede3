"""Encoders that tell persons apart, trained here."""
