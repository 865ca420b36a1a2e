"""Language models, caches, tokenizers, and where they come from."""
