"""Bytes: the storages and the interface that a plugin writes."""
