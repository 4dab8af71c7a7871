"""The type checker of the tests: as type checkers read annotations, an int is good where a float is wanted."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
