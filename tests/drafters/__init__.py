"""Tests of the drafters floor."""
