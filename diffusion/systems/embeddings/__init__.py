"""Embeddings of pictures and texts by a trained CLIP, which is not trained on (DALL-E 2)."""
