"""Serving: the base model and its adapters, answering side by side; knows no page, no trainer and no SQL."""
