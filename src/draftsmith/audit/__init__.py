"""Certificates of exactness: for a pair on this machine, and for other systems from outside."""
