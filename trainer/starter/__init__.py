"""The starter policy: a small, deliberately unaligned chat model, its world, its bad habits and its build."""
