"""A program as people see it: eBPF beside its source and its machine code, as text, JSON and one page.

Program, machine code -> View -> Listing (text, .json(), .html())
"""
