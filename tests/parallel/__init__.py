"""Several ranks: orders, processes, agreement."""
