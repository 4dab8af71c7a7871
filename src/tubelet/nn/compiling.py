"""What the layers tell torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def constant_result(function: F) -> F:
    """``torch.compiler.assume_constant_result``, without its import of the compiler, which takes a second.

    The name of the mark is torch's own (2.11 to 2.13); the tests that compile the zoo fail where it changes.
    """
    function.__dict__["_dynamo_marked_constant"] = True
    return function
