"""Several processes that run one model together: rank 0 decides, and the others do as it does."""
