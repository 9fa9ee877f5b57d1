"""Measurements of Heed as a whole: each one talks to a running service the way people and programs do."""
