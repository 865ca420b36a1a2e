"""Several engines behind one address: Ray Serve starts, watches, scales and routes."""
