"""Emoji: captioned colour pictures in four styles of drawing."""

from diffusion.data.emoji.emoji import Emoji as Emoji
