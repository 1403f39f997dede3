"""Captions of pictures from several sources, and which of them are shown."""
