"""From a picture to a text: a vocabulary, a decoder that looks at the picture, and its search."""
