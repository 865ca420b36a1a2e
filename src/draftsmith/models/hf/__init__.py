"""Models of `transformers`, behind our contract; the only place that imports that library."""
