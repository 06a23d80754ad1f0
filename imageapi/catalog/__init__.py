"""Rows and bytes in step."""
