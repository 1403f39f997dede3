"""Emoji: captioned colour pictures in four styles of drawing."""

from .module import Emoji

__all__ = ["Emoji"]
