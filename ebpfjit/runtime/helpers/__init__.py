"""Helpers: those of Linux, one module a subject, registered in `table`; rbpf's in `stock`."""
