"""Shapes, dtypes and types of every annotated function of the package, checked at every call.

jaxtyping's wrapper binds the signature at each call, which took most of the time of tests that call small functions of
plain numbers a million times. Where no hint speaks of an array, beartype alone checks the same types.
"""

import functools
import sys
import types
import typing
from typing import Any

import jax
import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep3119Exception

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a legal float, as everywhere in Python
_register_dataclass = jax.tree_util.register_dataclass
_jaxtyped = jaxtyping.jaxtyped


def checked(function: Any) -> Any:
    """`function` with its arguments checked, or itself where a hint, such as a plain Protocol, cannot be checked."""
    try:
        return _beartype(function)
    except BeartypeDecorHintPep3119Exception:
        return function


def speaks_of_arrays(hint: Any) -> bool:
    """Whether a hint has a jaxtyping array in it; a string may."""
    if isinstance(hint, str | typing.ForwardRef | typing.TypeVar):
        return True
    if getattr(hint, "__module__", "").startswith("jaxtyping"):  # PyTree, too
        return True
    if isinstance(hint, list | tuple):  # the arguments of a Callable
        return any(map(speaks_of_arrays, hint))
    return any(map(speaks_of_arrays, typing.get_args(hint)))


def _jaxtyped_where_arrays_are(*args: Any, **options: Any) -> Any:
    """`jaxtyping.jaxtyped`, in the form that its import hook uses, for functions that speak of arrays."""
    decorate = _jaxtyped(*args, **options)
    if args or not callable(decorate):
        return decorate

    def either(target: Any) -> Any:
        if not isinstance(target, types.FunctionType) or any(map(speaks_of_arrays, target.__annotations__.values())):
            return decorate(target)
        return checked(target)

    return either


def _register_unchecked(nodetype: Any, *args: Any, **kwargs: Any) -> Any:
    """jax builds registered dataclasses with batched, abstract and dummy leaves: their fields are not checked."""
    registered = _register_dataclass(nodetype, *args, **kwargs)
    nodetype.__no_type_check__ = True
    return registered


@functools.cache
def install() -> None:
    """Checks what is imported from the package from here on."""
    jax.tree_util.register_dataclass = _register_unchecked
    jaxtyping.jaxtyped = _jaxtyped_where_arrays_are  # type: ignore[assignment]
    checker = types.ModuleType("cooptim_checker")  # the hook names its checker by module
    checker.checked = checked  # type: ignore[attr-defined]
    sys.modules["cooptim_checker"] = checker
    jaxtyping.install_import_hook("cooptim", "cooptim_checker.checked")
