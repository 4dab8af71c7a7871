"""What is claimed and what was seen: the rows of a benchmark's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Claim:
    """``holds``: None for what could not be carried out, or has no goal. ``failures``: a line for each."""

    part: str
    what: str
    seen: str
    goal: str = ""
    holds: bool | None = None
    failures: tuple[str, ...] = ()


def none_of(part: str, what: str, count: int, failures: Sequence[str]) -> Claim:
    """The claim that of ``count`` things none fails."""
    return Claim(part, what, f"{len(failures)} of {count:,}", "0", not failures, tuple(failures))


def all_of(part: str, what: str, count: int, failures: Sequence[str], aside: str = "") -> Claim:
    """The claim that ``count`` things hold."""
    seen = f"{count - len(failures)} of {count:,}{aside}"
    return Claim(part, what, seen, "all", not failures, tuple(failures))


def at_most(part: str, what: str, seen: float, most: float, unit: str, aside: str = "") -> Claim:
    return Claim(part, what, f"{seen:,.1f} {unit}{aside}", f"{most:,g} {unit}", seen <= most)


def show(claims: Sequence[Claim], most: int = 8) -> None:
    """One table, and below it at most ``most`` failures of each claim."""
    table = Table("part", "what", "seen", "goal", "holds")
    for claim in claims:
        holds = {None: "", True: "yes", False: "NO"}[claim.holds]
        table.add_row(claim.part, claim.what, claim.seen, claim.goal, holds)
    console = Console(width=140)
    console.print(table)
    for claim in claims:
        for failure in claim.failures[:most]:
            console.print(f"{claim.part}, {claim.what}: {failure}", markup=False, highlight=False, soft_wrap=True)
