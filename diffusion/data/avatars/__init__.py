"""Avatars: drawn persons, several pictures of each, and the truth of a swap."""

from diffusion.data.avatars.avatars import Avatars as Avatars
