"""Tests of the engine floor."""
