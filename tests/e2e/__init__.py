"""Tests of the whole service, in a browser and over HTTP."""
