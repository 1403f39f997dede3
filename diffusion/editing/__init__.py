"""Commands that edit pictures by way of x_T and of their embeddings."""
