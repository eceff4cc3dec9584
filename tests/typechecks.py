"""What checks annotations at run time in the tests: beartype, to which an int is a float, as to every type checker."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
