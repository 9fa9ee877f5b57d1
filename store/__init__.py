"""The floor: every fact kept safe and every question about it answered. Imports nothing of ours."""
