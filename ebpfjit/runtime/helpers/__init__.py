"""Helpers: rbpf's in `stock`."""
