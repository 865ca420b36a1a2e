"""Measuring speculation beside plain decoding, in one run and in turn."""
