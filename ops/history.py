"""The history for those who look after it: verified, rebuilt, shown."""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal, localcontext

from simplejson import RawJSON
from tqdm import tqdm

from ops.access import record
from ops.report import NotSoundError, Report
from ops.show import currency
from shared.blob import Blob, md5
from shared.clock import Clock
from shared.drafts import MANIFEST, NDJSON, YET_TO_COME, Draft, Found, manifest_of
from shared.errors import ContainerMissingError, RecordError
from shared.history import History
from shared.rows import Row, day_of, generated_at, missing_days, parse_ndjson, read_ndjson
from shared.snapshots import DamagedError
from shared.usage_summary import Json, dump

_TRIES = 3
_NAMES_SAID = 5
_LINES_SAID = 50
_A_RUN_WRITES = 5.0  # seconds
_DAY = timedelta(days=1)


def verify(report: Report) -> None:
    """Report whether every dated blob is sound and the history is what a rebuild would make of them.

    Raises NotSoundError when not. Days without a snapshot and names of no snapshot are reported and no error.
    """
    dated, history = record()
    try:
        stored, draft, differing = _compared(history)
        ignored = dated.ignored()
    except ContainerMissingError as error:
        raise NotSoundError(error.message, hint=error.hint) from None
    report.add("snapshots", "Snapshots", len(draft.names))
    _add_lines(report, "damaged", "… damaged", draft.damaged)
    report.add("ignored", "", [*ignored], said="")
    _lines(report, "Ignored, no snapshot", ignored)
    if not draft.rows:
        history.files(draft)  # which says so
    report.add("rows", "Rows of the history", len(draft.rows))
    _add_lines(report, "kept", "… kept, no snapshot", draft.why_kept())
    report.add("differing", "Not as rebuilt", [*differing])
    head = stored.get(NDJSON)
    there, lost = read_ndjson(head.content) if head else ({}, 0)
    report.add("lostLines", "Lines that are no rows", lost or None)
    only_there = sorted(day for day, _ in there.keys() - draft.rows.keys())
    report.add("wouldDrop", "A rebuild would drop", [*only_there])
    last = max(map(day_of, draft.rows.values()))
    report.add("lastDate", "Newest snapshot", last.isoformat())
    report.add("daysSince", "Days since then", (Clock().now().date() - last).days)
    report.add("missingDates", "Days missing", [day.isoformat() for day in missing_days(draft.rows.values())])
    counts = {
        "damaged": len(draft.damaged),
        "kept without a snapshot": len(draft.kept),
        "not as rebuilt": len(differing),
    }
    if any(counts.values()):
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        raise NotSoundError(f"the record is not sound: {said}", hint=_advice(draft, differing, lost))
    report.add("sound", "Sound", value=True)


def _compared(history: History) -> tuple[dict[str, Blob], Draft, list[str]]:
    """The history as stored, what a rebuild would make of it, and the files that differ.

    Where no snapshot can be read no file is compared. Raises RecordError when the history changes each time.
    """
    clock = Clock()
    for _ in range(_TRIES):
        stored = history.stored()
        draft = history.draft(progress, stored.get(NDJSON))
        if len(draft.damaged) == len(draft.names):
            return stored, draft, []
        files = history.files(draft)
        said = stored.get(MANIFEST)
        files[MANIFEST] = manifest_of(draft, files, generated_at(said.content) if said else None)
        differing = [
            name
            for name, content in files.items()
            if name not in stored or stored[name].content != content or stored[name].md5 != md5(content)
        ]
        if differing:
            clock.sleep(_A_RUN_WRITES)  # its snapshot may be there, and the history yet to come
        if not differing or _etags(stored) == _etags(history.stored()):
            return stored, draft, differing
    raise RecordError("the history changed each time that it was read", hint="Try again in a minute.")


def _advice(draft: Draft, differing: list[str], lost: int) -> str:
    """What the operator does about a record that is not sound, in this order."""
    is_future = [damage == YET_TO_COME for damage in draft.damaged.values()]
    advice = []
    if draft.kept or not all(is_future):
        advice.append(
            "Restore the damaged and missing snapshots before anything else: undelete them, take an earlier "
            "version from the storage account, or rehydrate what is archived."
        )
    if draft.kept:
        advice.append(
            "The history keeps their rows, also in a rebuild, and they may stay; only a row that is wrong is "
            "a reason for history rebuild --drop and its day."
        )
    if lost:
        advice.append("A former version of usagesummary.ndjson may have the rows of the lines that are none.")
    if any(is_future):
        advice.append("Remove or rename the snapshots of days yet to come, which no run wrote.")
    if differing:
        advice.append(f"{'Then run' if advice else 'Run'} python3 -m ops history rebuild.")
    return " ".join(advice)


def rebuild(report: Report, *, dropped: Collection[date]) -> None:
    """Make the history again of all dated blobs, and report what changed.

    A row whose snapshot cannot be read stays, unless its day is to be dropped. Raises an error of this app.
    """
    _, history = record()
    updated = history.rebuild(progress, dropped)
    report.add(
        "written",
        "Files written",
        [*updated.written],
        said=None if updated.written else "none: all was right",
    )
    said = ", ".join([*updated.added[:_NAMES_SAID], "…"][: len(updated.added)])
    report.add(
        "added", "Rows from", [*updated.added], said=f"{len(updated.added)} snapshots: {said}" if said else ""
    )
    report.add("lostLines", "Lines that were no rows", updated.lost or None)
    report.add("dropped", "Days that lost a row", [*updated.dropped])
    _add_lines(report, "damaged", "Damaged, left out", updated.damaged)
    _add_lines(report, "kept", "Kept, no snapshot", updated.kept)
    report.add("rows", "Rows of the history", updated.rows)
    report.add("missingDates", "Days missing", [day.isoformat() for day in updated.missing])


def show(report: Report, *, days: int) -> None:
    """Report the last days of the history, each with what it added. Raises an error of this app."""
    _, history = record()
    head = history.stored().get(NDJSON)
    try:
        rows = parse_ndjson(head.content) if head else []
    except DamagedError:
        raise RecordError("the history is damaged", hint="Run python3 -m ops history rebuild.") from None
    if not rows:
        raise RecordError(
            "there is no history yet", hint="Check USAGE_HISTORY_CONTAINER, or run python3 -m ops snapshot."
        )
    shown = list(_shown(rows, days, Clock().now().date()))
    report.table("days", shown, _COLUMNS, [_said(day) for day in shown])


def progress(found: Iterator[Found], total: int) -> Iterable[Found]:
    """A bar on standard error for what takes longer than a second."""
    every = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(found, total=total, unit=" snapshots", delay=1, mininterval=every, leave=False)


def _add_lines(report: Report, name: str, label: str, reasons: Mapping[str, str]) -> None:
    """Blobs, each with its reason."""
    report.add(name, "", dict(reasons), said="")
    _lines(report, label, [f"{blob}: {reason}" for blob, reason in reasons.items()])


def _lines(report: Report, label: str, lines: Sequence[str]) -> None:
    """A line each for a person; of many the first."""
    for line in lines[:_LINES_SAID]:
        report.line(label, line)
    if len(lines) > _LINES_SAID:
        report.line(label, f"and {len(lines) - _LINES_SAID} more, all of them with --json")


def _etags(stored: dict[str, Blob]) -> dict[str, str]:
    return {name: blob.etag for name, blob in stored.items()}


def _shown(rows: list[Row], days: int, today: date) -> Iterator[dict[str, Json]]:
    """A row for each of the last days and billing periods; for a day without a snapshot one that says so.

    The last is the newest one's, or yesterday where nothing has come since before.
    """
    until = max(day_of(rows[-1]) + _DAY, today)
    first = until - days * _DAY
    before: Row | None = None
    for row in rows:
        if before is not None:
            yield from _gap(day_of(before), day_of(row), first)
        if day_of(row) >= first:
            yield {name: row[name] for name in _KEPT} | _change(row, before)
        before = row
    yield from _gap(day_of(rows[-1]), until, first)


def _gap(before: date, after: date, first: date) -> Iterator[dict[str, Json]]:
    """The days between two, from the first to be shown."""
    day = max(before + _DAY, first)
    while day < after:
        yield {"snapshotDate": day.isoformat(), "note": "no snapshot"}
        day += _DAY


def _change(row: Row, before: Row | None) -> dict[str, Json]:
    """What a row adds to the one before it; the first of a period adds all of its cost."""
    if before is None:
        return {"change": None, "note": "the record begins"}
    if row["billingStartDate"] != before["billingStartDate"]:
        return {"change": row["totalCost"], "note": "a period begins"}
    if currency(row) != currency(before):
        return {"change": None, "note": "another currency"}
    days = (day_of(row) - day_of(before)).days
    with localcontext(prec=100):
        change = _decimal(row["totalCost"]) - _decimal(before["totalCost"])
    return {"change": RawJSON(f"{change:f}"), "note": f"in {days} days" if days > 1 else None}


def _said(day: dict[str, Json]) -> list[str]:
    """A row for a person."""
    cells = {name: "" if value is None else dump(value).decode().strip('"') for name, value in day.items()}
    for name in ("totalCost", "change"):
        if day.get(name) is not None:
            with localcontext(prec=100):
                cells[name] = f"{_decimal(day[name]):{'+' if name == 'change' else ''},.2f}"
    cells["currency"] = currency(day)
    cells["lastModifiedDate"] = cells.get("lastModifiedDate", "")[:10]
    return [cells.get(name, "") for name in _COLUMNS]


def _decimal(number: Json) -> Decimal:
    return Decimal(number.encoded_json) if isinstance(number, RawJSON) else Decimal(0)


_KEPT = (
    "snapshotDate",
    "billingStartDate",
    "totalCost",
    "currencyCode",
    "currencyLocale",
    "customersOverBudget",
    "customersTrendingOver",
    "lastModifiedDate",
)
_COLUMNS = {
    "snapshotDate": "Day (UTC)",
    "billingStartDate": "Period from",
    "totalCost": "Cost so far",
    "change": "Change",
    "currency": "Currency",
    "customersOverBudget": "Over budget",
    "customersTrendingOver": "Trending over",
    "lastModifiedDate": "Data of",
    "note": "",
}
