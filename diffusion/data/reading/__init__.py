"""From a file on disk to a picture, in a known order."""
