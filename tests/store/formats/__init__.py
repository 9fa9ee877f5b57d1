"""Tests of the formats we read."""
