"""A Functions host for this machine: python3 -m dev.host.

Microsoft's own azure-functions-runtime-v1, which Azure runs as well, loads and calls the functions; this is
what the .NET host does around it. Its behaviour is copied from github.com/Azure/azure-functions-host (there
GrpcMessageConversionExtensions, ExceptionMiddleware) and, for timers, from azure-webjobs-sdk-extensions. Keys
are not asked for, as Core Tools asks for none. One thing is its own: `Prefer: wait` (RFC 7240) on a POST to
/admin/functions/{name} answers when the run has ended, 200 or 500.
"""

import argparse
import asyncio
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import azure_functions_runtime_v1 as runtime
import uvicorn
from azure_functions_runtime_v1.bindings.datumdef import Datum
from azure_functions_runtime_v1.native_invocation import invocation_request_native
from croniter import CroniterError, croniter
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from dev.environment import ROOT
from dev.ports import PortError, listen, port_number

# Loggers whose records the platform keeps to itself: azure_functions_runtime_v1/logging.py.
SYSTEM_LOGS = ("azure.functions", "azure_functions_runtime", "proxy_worker")
# An open request is waited for this long at the end.
GRACE_SECONDS = 1
# A clock that was set, or a machine that slept, is noticed after this at the latest.
LONGEST_NAP = timedelta(minutes=1)


class HostError(Exception):
    """The host, or one function of it, cannot start; the message is for the person who started it."""


@dataclass(frozen=True)
class HttpTrigger:
    """When an HTTP request is for a function: no methods means all."""

    parameter: str
    methods: frozenset[str]
    path: re.Pattern[str]


@dataclass(frozen=True)
class TimerTrigger:
    """When a timer runs, in UTC; runs never overlap."""

    parameter: str
    schedule: str
    running: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Function:
    """A function folder, read."""

    name: str
    script: Path
    entry_point: str
    bindings: Mapping[str, SimpleNamespace]  # name -> type, direction, data_type: what the runtime reads
    trigger: HttpTrigger | TimerTrigger


class _StatusResult(SimpleNamespace):
    Failure = 0
    Success = 1


# What the runtime takes from the protocol's generated classes; an invocation needs none of them.
_PROTOCOL = SimpleNamespace(
    BindingInfo=SimpleNamespace(in_="in", out="out", inout="inout", undefined=None),
    FunctionLoadResponse=SimpleNamespace,
    RpcException=SimpleNamespace,
    StatusResult=_StatusResult,
    WorkerInitResponse=SimpleNamespace,
    WorkerMetadata=SimpleNamespace,
)

_function: ContextVar[str] = ContextVar("function", default="host")
# A synchronous function runs in a thread that knows its invocation only.
_invocations: dict[str, str] = {}


class _Lines(logging.Formatter):
    """`2026-11-21T07:00:00Z INFO GetUsageSummary message`, the same before every line of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        invocation = runtime.invocation_id_cv.get()
        name = _invocations.get(invocation, _function.get()) if invocation else _function.get()
        head = f"{at} {record.levelname} {name} "
        return "\n".join(head + line for line in super().format(record).splitlines() or [""])


_log = logging.getLogger("dev.host")


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether the platform shows a record: its own not, nor one that belongs to no running invocation.

    Source: azure_functions_runtime_v1/logging.py; GrpcWorkerChannel.Log in azure-functions-host.
    """
    if record.name.startswith(SYSTEM_LOGS):
        return False
    return record.name == _log.name or runtime.invocation_id_cv.get() in _invocations


@contextmanager
def _logged_as(name: str) -> Iterator[None]:
    """Attribute what is logged within to the function `name`."""
    token = _function.set(name)
    try:
        yield
    finally:
        _function.reset(token)


def start_logging() -> None:
    """Send what the functions log, INFO and above, to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Lines())
    handler.addFilter(_is_shown)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def settings_of(file: Path) -> dict[str, str]:
    """The Values of a local.settings.json, none when there is no such file; raises HostError."""
    if not file.exists():
        return {}
    values = _read(file).get("Values", {})
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise HostError(f"{file.name}: Values must be an object of strings")
    return values


def folders_in(root: Path) -> list[Path]:
    """The function folders of an app."""
    return sorted(file.parent for file in root.glob("*/function.json"))


def route_prefix_of(file: Path) -> str:
    """What the paths of all HTTP functions begin with, from a host.json; raises HostError."""
    prefix: str = _read(file).get("extensions", {}).get("http", {}).get("routePrefix", "api")
    return prefix


def function_of(folder: Path, prefix: str, settings: Mapping[str, str]) -> Function:
    """The function in a folder that has a function.json; raises HostError."""
    declared = _read(folder / "function.json")
    bindings = {
        binding["name"]: SimpleNamespace(
            type=binding["type"], direction=binding.get("direction", "in"), data_type=binding.get("dataType")
        )
        for binding in declared["bindings"]
    }
    triggers = [binding for binding in declared["bindings"] if binding["type"].endswith("Trigger")]
    if len(triggers) != 1:
        raise HostError("there must be one trigger")
    trigger = triggers[0]
    unknown = {binding.type for binding in bindings.values()} - {"httpTrigger", "http", "timerTrigger"}
    if unknown:
        raise HostError(f"bindings that only Core Tools and Azure know: {', '.join(sorted(unknown))}")
    return Function(
        name=folder.name,
        script=folder / declared.get("scriptFile", "__init__.py"),
        entry_point=declared.get("entryPoint", ""),
        bindings=bindings,
        trigger=HttpTrigger(
            parameter=trigger["name"],
            methods=frozenset(method.upper() for method in trigger.get("methods", ())),
            path=path_of(prefix, trigger.get("route", folder.name)),
        )
        if trigger["type"] == "httpTrigger"
        else TimerTrigger(
            parameter=trigger["name"], schedule=schedule_of(trigger.get("schedule", ""), settings)
        ),
    )


def path_of(prefix: str, route: str) -> re.Pattern[str]:
    """The paths that a route stands for, in any case; `{name}` is one segment. Raises HostError."""
    segments = [segment for segment in f"{prefix}/{route}".split("/") if segment]
    parts = [re.fullmatch(r"\{(\w+)\}|([^{}]+)", segment) for segment in segments]
    if not all(parts):
        raise HostError(f"route {route}: beyond whole segments, only Core Tools and Azure know parameters")
    pattern = "".join(
        f"/(?P<{part[1]}>[^/]+)" if part[1] else "/" + re.escape(part[2]) for part in parts if part
    )
    return re.compile(pattern + "/?", re.IGNORECASE)


def schedule_of(expression: str, settings: Mapping[str, str]) -> str:
    """An NCRONTAB expression of six fields, from a setting if it is `%SETTING%`; raises HostError."""
    source = "schedule"
    if found := re.fullmatch(r"%(.+)%", expression):
        source = f"setting {found[1]}"
        expression = settings.get(found[1], "")
    if not expression.strip():
        raise HostError(f"{source} is missing: the schedule, for example 0 5 * * * *")
    fields = expression.split()
    fields = fields if len(fields) == 6 else ["0", *fields]  # noqa: PLR2004 - with five, seconds are left out
    schedule = " ".join(fields)
    try:
        if len(fields) == 6:  # noqa: PLR2004 - croniter takes a seventh, the year
            first_tick(schedule, datetime.now(UTC))
            return schedule
    except CroniterError:
        pass
    raise HostError(f"{source} is no schedule of six fields, for example 0 5 * * * *")


def first_tick(schedule: str, instant: datetime) -> datetime:
    """The first tick later than `instant`; day of month and day of week must both fit, as in NCRONTAB.

    Raises CroniterError.
    """
    ticks = croniter(schedule, instant, second_at_beginning=True, day_or=False)
    tick: datetime = ticks.get_next(datetime)
    return tick


def _read(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise HostError(f"{file.name}: {error}") from error
    if not isinstance(read, dict):
        raise HostError(f"{file.name}: must be an object")
    return read


class Host:
    """The functions of one app, as an ASGI application and as running timers."""

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}
        self._unloadable: dict[str, str] = {}
        self._tasks: set[asyncio.Task[bool]] = set()

    async def load(self, root: Path, settings: Mapping[str, str]) -> None:
        """Load every function below `root`; one that is in error is logged, and the others run.

        Raises HostError when host.json is wrong.
        """
        prefix = route_prefix_of(root / "host.json")
        runtime.start_threadpool_executor()
        await runtime.worker_init_request(
            SimpleNamespace(
                request=SimpleNamespace(worker_init_request=SimpleNamespace(capabilities={})),
                properties={"protos": _PROTOCOL, "host": "127.0.0.1"},
            )
        )
        for folder in folders_in(root):
            with _logged_as(folder.name):
                try:
                    function = function_of(folder, prefix, settings)
                except (HostError, KeyError, TypeError, AttributeError) as error:
                    _log.error("function %s is in error: %s", folder.name, error)
                else:
                    await self._load(function)

    async def _load(self, function: Function) -> None:
        self._functions[function.name.lower()] = function
        metadata = SimpleNamespace(
            name=function.name,
            directory=str(function.script.parent),
            script_file=str(function.script),
            entry_point=function.entry_point,
            bindings=function.bindings,
        )
        request = SimpleNamespace(function_id=function.name, metadata=metadata)
        loaded = await runtime.function_load_request(
            SimpleNamespace(request=SimpleNamespace(function_load_request=request))
        )
        if loaded.result.status != _StatusResult.Success:
            why = loaded.result.exception
            self._unloadable[function.name] = why.message
            _log.error("function %s is in error: %s\n%s", function.name, why.message, why.stack_trace)

    async def invoke(self, function: Function, given: Datum) -> tuple[bool, Datum | None]:
        """Run a function once: whether it did not raise, and what it returned. A failure is logged."""
        invocation = str(uuid.uuid4())
        with _logged_as(function.name):
            if function.name in self._unloadable:
                _log.error("invocation %s failed: %s", invocation, self._unloadable[function.name])
                return False, None
            _invocations[invocation] = function.name
            try:
                ok, returned, _, error, stack = await invocation_request_native(
                    invocation, function.name, [(function.trigger.parameter, given)], {}
                )
            finally:
                del _invocations[invocation]
            if not ok:
                _log.error("invocation %s failed: %s\n%s", invocation, error, stack)
            return ok, returned

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        request = Request(scope, receive)
        path: str = scope["path"]
        if path == "/" and request.method in {"GET", "HEAD"}:
            return await _respond(request, send, 200)
        if request.method == "POST" and (admin := re.fullmatch(r"/admin/functions/([^/]+)", path)):
            return await _respond(request, send, await self._fire(admin[1], request))
        for function in self._functions.values():
            trigger = function.trigger
            if (
                isinstance(trigger, HttpTrigger)
                and (not trigger.methods or request.method in trigger.methods)
                and (matched := trigger.path.fullmatch(path))
            ):
                try:
                    given = await _datum_of(request, matched.groupdict())
                except ClientDisconnect:
                    return None
                ok, returned = await self.invoke(function, given)
                return await _respond(request, send, 200 if ok else 500, returned)
        return await _respond(request, send, 404)

    async def _fire(self, name: str, request: Request) -> int:
        """Start a timer function now, as Core Tools does; returns the status of the answer."""
        function = self._functions.get(name.lower())
        if function is None or not isinstance(function.trigger, TimerTrigger):
            return 404
        run = asyncio.create_task(self._run(function, function.trigger))
        self._tasks.add(run)
        run.add_done_callback(self._tasks.discard)
        if "wait" not in request.headers.get("prefer", ""):
            return 202
        return 200 if await run else 500

    async def _run(self, function: Function, trigger: TimerTrigger) -> bool:
        async with trigger.running:
            now = datetime.now(UTC)
            status = {"Last": now, "Next": first_tick(trigger.schedule, now), "LastUpdated": now}
            given = {
                "Schedule": {"AdjustForDST": False},
                "ScheduleStatus": {name: instant.isoformat() for name, instant in status.items()},
                "IsPastDue": False,
            }
            ok, _ = await self.invoke(function, Datum(json.dumps(given), "json"))
            return ok

    async def keep_time(self) -> None:
        """Run every timer on its schedule, for ever."""
        async with asyncio.TaskGroup() as timers:
            for function in self._functions.values():
                if isinstance(function.trigger, TimerTrigger):
                    timers.create_task(self._keep(function, function.trigger))

    async def _keep(self, function: Function, trigger: TimerTrigger) -> None:
        begun = datetime.now(UTC)
        while True:
            # However many ticks a run outlasts, one more run follows it at once.
            due = first_tick(trigger.schedule, begun)
            while (left := due - datetime.now(UTC)) > timedelta():  # noqa: ASYNC110 - waits for a clock
                await asyncio.sleep(min(left, LONGEST_NAP).total_seconds())
            begun = max(due, datetime.now(UTC))
            await self._run(function, trigger)


def joined(pairs: list[tuple[str, str]]) -> dict[str, Datum]:
    """Repeated names as one, with a comma between; empty values count for nothing."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        if value:
            values.setdefault(name, []).append(value)
    return {name: Datum(",".join(several), "string") for name, several in values.items()}


async def _datum_of(request: Request, parameters: Mapping[str, str]) -> Datum:
    """A request as the functions see it; a body without a length is not delivered."""
    body = await request.body() if int(request.headers.get("content-length", "0")) else b""
    value = {
        "method": Datum(request.method, "string"),
        "url": Datum(str(request.url), "string"),
        "headers": joined(request.headers.items()),
        "query": joined(request.query_params.multi_items()),
        "params": {name: Datum(text, "string") for name, text in parameters.items()},
        "body": Datum(body, "bytes"),
    }
    return Datum(value, "http")


async def _respond(request: Request, send: Send, status: int, returned: Datum | None = None) -> None:
    """Send what a function returned, header by header, or an empty answer."""
    headers: list[tuple[str, str]] = []
    body = b""
    if returned is not None and returned.type == "string":
        headers, body = [("content-type", "text/plain; charset=utf-8")], returned.value.encode()
    elif returned is not None:
        status = int(returned.value["status_code"].value)
        headers = [(name.lower(), value.value) for name, value in returned.value["headers"].items()]
        headers = [header for header in headers if header != ("content-type", "")]  # as ASP.NET Core does
        cookies = returned.value["cookies"] or []
        headers += [("set-cookie", morsel.OutputString()) for cookie in cookies for morsel in cookie.values()]
        body = returned.value["body"].value
    if status in {204, 304}:
        headers, body = [header for header in headers if header[0] != "content-length"], b""
    elif "content-length" not in dict(headers) and (body or request.method != "HEAD"):
        headers.append(("content-length", str(len(body))))
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """uvicorn that leaves the signals to main."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(root: Path, held: socket.socket, *, until_eof: bool) -> None:
    """Run the app in `root` until SIGINT, SIGTERM or, if asked to, the end of standard input."""
    host = Host()
    await host.load(root, os.environ)
    config = uvicorn.Config(
        host,
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)

    def end(*_: object) -> None:
        server.should_exit = True
        logging.getLogger("uvicorn.error").disabled = True  # the requests that it breaks off

    def end_with_input() -> None:
        sys.stdin.buffer.read()
        end()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    if until_eof:
        threading.Thread(target=end_with_input, daemon=True).start()
    timers = asyncio.create_task(host.keep_time())
    print(f"listening on http://127.0.0.1:{held.getsockname()[1]}", flush=True)
    await server.serve([held])
    timers.cancel()


def main() -> None:
    """The command line; ends the process."""
    parser = argparse.ArgumentParser(
        prog="python3 -m dev.host",
        description="Run the functions of an app on this machine. Settings come from the environment, then"
        " from the Values of local.settings.json.",
    )
    parser.add_argument(
        "--port", type=port_number, default=7071, help="where it answers, 0 for any free port"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the app: the directory with host.json")
    parser.add_argument("--environment-only", action="store_true", help="do not read local.settings.json")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    options = parser.parse_args()
    root: Path = options.root.resolve()
    try:
        held = listen(options.port)
        if not options.environment_only:
            os.environ.update(settings_of(root / "local.settings.json") | os.environ)
        # The platform's order: what is installed goes before the app.
        own = {ROOT, root, Path.cwd()}
        sys.path[:] = [*(entry for entry in sys.path if Path(entry).resolve() not in own), str(root)]
        start_logging()
        asyncio.run(serve(root, held, until_eof=options.until_eof))
    except (HostError, PortError) as error:
        sys.exit(str(error))
    # A thread in which a function hangs would keep the interpreter from ending.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
