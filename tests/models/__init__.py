"""Tests of the models floor."""
