"""What checks annotations at run time in the tests: beartype, to which an int is a float, as to every type checker."""

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def typecheck(function):
    """The function, checked; but JAX builds states of anything: shapes, axes, or many members' arrays."""
    return function if function.__qualname__.endswith("__init__") else _check(function)
