"""Programs aimed at one kind of hole each, as somebody would write them who has read the analysis.

wide.py       numbers at the borders of 8, 16, 32 and 64 bits: steps, bounds, scales, distances, masks
paths.py      what one path knows of a number, asked on another
frames.py     stack frames at addresses that were guessed, of functions above, below and returned
callbacks.py  any function, main too, called back by a helper, by address, at a forged address
tails.py      tail calls between programs of one type and of several
helpers.py    every helper with sizes and pointers that it must refuse
overlaps.py   keys and values taken from inside of maps; entries deleted while they are held
idioms.py     what compilers write for one thing that the machine does, and nearly
arrays.py     loops that put elements of arrays together, and nearly
calls.py      small functions that are called again and again, which are inlined, and nearly such
growth.py     packets that grow and shrink by turns
ends.py       packets between the ends that contexts say, and pointers that are taken for theirs
writer.py     what they are written with
"""
