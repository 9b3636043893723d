"""The instruction set: row types, the table, and what each operation means."""
