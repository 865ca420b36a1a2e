"""GGUF files: what they say, read by us and by nobody else."""
