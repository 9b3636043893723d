"""Recipe -> Listing -> Image: a program's text and machine code, made anew.

What is found in a cache needs none of this: `entry` imports it where something is to be translated.
"""

from __future__ import annotations

from ebpfjit.analysis import verifier
from ebpfjit.collector import collector_paused
from ebpfjit.errors import OptimizationError, TranslationError
from ebpfjit.failures import are_raised
from ebpfjit.jit import failing
from ebpfjit.jit.assembler import assemble_parts
from ebpfjit.jit.baseline import baseline_listing
from ebpfjit.jit.image import Image
from ebpfjit.jit.recipe import Listing, Recipe
from ebpfjit.jit.relocation import layout
from ebpfjit.jit.routine_text import listing as shared_listing
from ebpfjit.jit.routines import are_ready
from ebpfjit.jit.stages import done
from ebpfjit.once import import_alone

MOST_KEPT = 256
"""Slots of a program whose text is kept: it takes three times the memory of all else."""


def translated_anew(recipe: Recipe) -> tuple[Recipe, Listing | None, Image]:
    """Verify and translate a program, while no garbage is looked for; its text where that is to be kept.

    Raises VerifierError for a program that is to be sound and is not, and as `translated`.
    """
    options, program = recipe.options, recipe.verified.program
    with collector_paused():
        if options.is_sound:
            verifier.check(program)
        done("verify")
        recipe, listing, image = translated(recipe)
        # Blinding is by chance, so that text cannot be written anew.
        keeps = options.harden or options.keeps_text or len(program) <= MOST_KEPT
        kept = listing if keeps else None
        del listing  # before the collector is back, and goes through it
        return recipe, kept, image


def listing_of(recipe: Recipe) -> Listing:
    """Return a recipe's text; what optimises is imported where it is asked for. See `jit.compiler`."""
    if not recipe.is_optimized:
        return baseline_listing(recipe)
    import_alone("ebpfjit.jit.compiler")
    from ebpfjit.jit import compiler

    return compiler.listing_of(recipe)


KERNEL_LOADS = "it loads through pointers of the kernel, of which analysis knows nothing"
ARENA = "it has pointers into an arena, of which analysis knows nothing"


def translated(recipe: Recipe) -> tuple[Recipe, Listing, Image]:
    """Return a recipe's text and machine code; where it cannot be optimised, those of its baseline code.

    That is so where analysis would take too much, and where there is an error in the optimizer, of which the
    user is told: such as a number that does not fit where it goes, which no number of baseline code does.
    Raises TranslationError where that cannot be made either.
    """
    if recipe.options.optimize and not recipe.verified.knows_all:
        recipe = recipe.baseline(KERNEL_LOADS if recipe.verified.kernel_loads else ARENA)
    try:
        listing = listing_of(recipe)
        done("translate")
        return recipe, listing, assemble(listing)
    except (OptimizationError, MemoryError) as error:
        size = len(recipe.verified.program)
        reason = str(error) or f"there is not enough memory to compile {size} instructions"
        if not recipe.options.optimize:
            raise TranslationError(reason) from None
    except Exception as error:
        if are_raised() or not recipe.options.optimize:
            raise
        reason = failing.reason_of(error)
        below = translated(recipe.baseline(reason))  # what is wrong with the program is raised here
        failing.warn(recipe.verified.program, reason)
        return below
    return translated(recipe.baseline(reason))


def assemble(listing: Listing) -> Image:
    """Return the machine code of a listing. Calls keystone at most once."""
    assemble_lines(listing)
    done("assemble")
    image = layout(listing)
    done("layout")
    return image


def assemble_lines(listing: Listing) -> None:
    """Give each line of a listing its bytes. Calls keystone at most once.

    The first time, what all programs share is assembled with it.
    """
    assemble_parts(listing.parts if are_ready() else [*listing.parts, *shared_listing().parts])
