"""Translators: from one eBPF instruction to the assembly text of a machine.

registry.py     which function translates which operation, for each machine
block.py        what all machines' code shares with its host; labels.py, host.py
emitter.py      the text a translator writes, and the listing it becomes
x86_64/         a folder for each machine: target, alu, jump, memory, atomic, call
"""
