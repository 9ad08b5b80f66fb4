"""How programs of tests are compiled: with little effort where compiling outweighs running.

Most of what a test compiles are single operations and draws of random numbers, each for arrays of its own shape. With
all optimizations, of which they have no use, an operation takes 35 CPU-ms and a draw 200 to 300; with those of
`cooptim.compile.compiled_once` 20, and 50 to 90. Options of single programs are not jax's to give in public, so this
reaches inside; where another version has other insides all is compiled as usual, and the suite takes longer.
"""

import functools
from typing import Any

try:
    from jax._src import prng, random
    from jax._src.compiler import use_detailed_logging
    from jax._src.interpreters import pxla

    _usual: Any = pxla.create_compile_options
except (ImportError, AttributeError):
    _usual = None

_least: dict[str, Any] = {}
_programs = "none"


@functools.cache
def install() -> None:
    """Puts `few_optimizations` into effect; imports the package."""
    from cooptim.compile import compiler_options

    if _usual is None:
        return
    _least.update(compiler_options(once=True))
    pxla.create_compile_options = _options


def few_optimizations(programs: str) -> None:
    """Programs that are compiled with the least effort from here on: 'all', 'small' or 'none'.

    Operations that were compiled before stay as they are.
    """
    global _programs
    _programs = programs


def small(module: Any) -> bool:
    """Whether a program has fewer than 10 operations (jax logs others in detail) or draws random numbers only."""
    name = module.operation.attributes["sym_name"].value.removeprefix("jit_")
    return not use_detailed_logging(module) or hasattr(random, name) or hasattr(prng, name)


def _options(module: Any, *args: Any) -> Any:
    *args, options = args  # type: ignore[assignment]
    if _programs == "all" or (_programs == "small" and small(module)):
        options = {**_least, **options}
    return _usual(module, *args, options)
