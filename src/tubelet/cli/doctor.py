"""``tubelet doctor``: what is installed, and how to fix what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from tubelet.cli.command import Json, Status
from tubelet.cli.terminal import print_json, print_tables

if TYPE_CHECKING:
    from tubelet.doctor import Finding

_COLORS = {"ok": "green", "note": "yellow", "missing": "red"}


def doctor(*, json: Json = False) -> Status:
    """Check versions, decoders, devices, threads, memory and disk, and say how to fix what is missing."""
    from tubelet.doctor import examine

    findings = examine()
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_tables(_findings_table(findings))
    return 1 if any(finding.state == "missing" for finding in findings) else 0


def _findings_table(findings: Sequence[Finding]) -> Table:
    made = Table(box=None, pad_edge=False, show_header=False)
    for f in findings:
        color = _COLORS[f.state]
        text = escape(f.found) + (f"\n[{color if f.state != 'ok' else 'dim'}]{escape(f.advice)}[/]" if f.advice else "")
        made.add_row(f"[{color}]{f.state}[/]", f.topic, f.name, text)
    return made
