"""Benchmarks that anyone can repeat: python3 -m dev bench.

A module has one question and a function `measure`, which answers it; `quick` asks it in a tiny form, which
shows that it works and measures nothing worth writing down.

hits       a hit beside a function that does nothing
hanging    hits while Partner Center does not answer
fleet      several processes that share an answer, beside libraries; caller is one of those processes
cold       the first answer of a new process
memory     what a process holds after very many requests
record     a run of the timer and a rebuild, as the record grows; years makes such a record
powerbi    storage's part of a refresh of the report

hosts, upstream and wire are what is measured, and around it; load is a client; figures and report say it.
"""

from dev.azurite import Azurite
from dev.bench import cold, fleet, hanging, hits, memory, powerbi, record
from dev.bench.report import PAGE, machine, markdown
from dev.environment import ROOT

BENCHMARKS = (hits, hanging, fleet, cold, memory, record, powerbi)


def bench(*, quick: bool) -> int:
    """Run them all and print what they find, unless quick into docs/benchmarks.md too; the exit code."""
    known, sections = machine(), []
    with Azurite() as azurite:
        for benchmark in BENCHMARKS:
            section = benchmark.measure(azurite, quick=quick)
            print(f"\n{section.text('simple')}", flush=True)
            sections.append(section)
    if not quick:
        PAGE.write_text(markdown(known, sections), encoding="utf-8")
        print(f"\n{PAGE.relative_to(ROOT)} is written anew")
    return 0
