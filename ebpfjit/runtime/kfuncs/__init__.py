"""Kernel functions that programs call by name: those of Linux that are plain logic, and a caller's own."""
