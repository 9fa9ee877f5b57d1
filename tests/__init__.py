"""Heed's tests; they mirror the folders they test."""
