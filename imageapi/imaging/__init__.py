"""Pixels: what a file is, and its renditions."""
