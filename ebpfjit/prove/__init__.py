"""Proofs by a solver, on demand: rules of the optimizer at 32 and 64 bits, translators against the meanings.

symbolic.py      Python's integers, of which only bounds are known, and what is true of them
theories.py      the same as the solver reads it: vectors of bits, or integers
claims.py        what is claimed, along each path of the Python that states it, and what the solver says
range_rules.py   claims: intervals, comparisons, low zeros
verifier_rules   claims: known bits, signed ranges
algebra_rules.py claims: arithmetic with constants, divisions by constants
meanings.py      what rows mean, of symbolic numbers
code.py          Code, run on them
code_rules.py    claims: small pieces of Code do the same behind a pass
machine.py       bytes of x86-64, lifted
stencils.py      claims: translators of arithmetic, byte swaps and jumps
value_stencils   claims: translators of what only Code has
run.py, report   claims by room, decided in several processes; what was proven, refuted, left open
"""
