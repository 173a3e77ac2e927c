import http.client
import json
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from dev.environment import ROOT
from dev.host import HostError, first_tick, path_of, schedule_of
from tests.threads import PATIENCE

HTTP: dict[str, object] = {"type": "httpTrigger", "direction": "in", "name": "req"}
REPLY: dict[str, object] = {"type": "http", "direction": "out", "name": "$return"}
TIMER: dict[str, object] = {"type": "timerTrigger", "direction": "in", "name": "timer"}

ECHO = """
    import json, logging, sys
    import azure.functions as func
    from kept.answer import ANSWER

    def main(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
        logging.getLogger("app").info("echo %s", context.invocation_id)
        logging.getLogger("azure.functions.something").error("a record of the system")
        seen = {
            "method": req.method, "url": req.url, "headers": dict(req.headers), "params": dict(req.params),
            "route": dict(req.route_params), "body": req.get_body().decode(), "answer": ANSWER,
            "first": sys.path[0], "last": sys.path[-1], "greeting": __import__("os").environ.get("GREETING"),
        }
        return func.HttpResponse(json.dumps(seen), mimetype="application/json", headers={"ETag": '"1"'})
"""
REPLIES = """
    import asyncio, logging
    import azure.functions as func

    async def main(req: func.HttpRequest) -> func.HttpResponse:
        what = req.route_params["what"]
        logging.info("reply %s", what)
        if what == "raise":
            raise RuntimeError("a wall")
        if what == "hang":
            await asyncio.Event().wait()
        if what == "unchanged":
            return func.HttpResponse(status_code=304, headers={"ETag": '"1"', "Age": "7"})
        if what == "length":
            return func.HttpResponse(headers={"Content-Length": "1234", "Content-Type": "application/json"})
        if what == "cookies":
            response = func.HttpResponse("two")
            response.headers.add("Set-Cookie", "a=1; Path=/")
            response.headers.add("Set-Cookie", "b=2")
            return response
        return func.HttpResponse("whole", status_code=201)
"""
TICK = """
    import logging
    import azure.functions as func

    def main(timer: func.TimerRequest) -> None:
        logging.warning("tick past_due=%s", timer.past_due)
"""
BROKEN_TICK = """
    import azure.functions as func

    def main(timer: func.TimerRequest) -> None:
        raise RuntimeError("no tick")
"""
HANGING = """
    import threading
    import azure.functions as func

    def main(req: func.HttpRequest) -> str:
        threading.Event().wait()
        return ""
"""


def write_function(root: Path, name: str, source: str, *bindings: dict[str, object]) -> None:
    (root / name).mkdir()
    (root / name / "__init__.py").write_text(textwrap.dedent(source))
    (root / name / "function.json").write_text(json.dumps({"bindings": bindings}))


@dataclass
class Running:
    """A host in a process of its own, as the runtime keeps its functions for a whole process."""

    process: subprocess.Popen[str]
    started: list[str]
    port: int

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response, answer

    def echo(self, path: str, headers: dict[str, str] | None = None) -> dict[str, object]:
        seen: dict[str, object] = json.loads(self.ask("GET", path, headers)[1])
        return seen

    def log_until(self, text: str) -> list[str]:
        assert self.process.stdout
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip("\n"))
            if text in line:
                return lines
        raise AssertionError(lines)


def start(root: Path, *options: str, **settings: str) -> Running:
    process = subprocess.Popen(
        [sys.executable, "-m", "dev.host", "--port", "0", "--root", str(root), *options],
        cwd=ROOT,
        env={"PATH": "", **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running = Running(process, [], 0)
    running.started = running.log_until("listening on ")
    running.port = int(running.started[-1].rpartition(":")[2])
    return running


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("app")
    (root / "host.json").write_text('{"version": "2.0", "extensions": {"http": {"routePrefix": ""}}}')
    (root / "local.settings.json").write_text(
        '{"Values": {"GREETING": "from the file", "NEVER": "0 0 0 1 1 *", "WRONG": "0 61 * * * *"}}'
    )
    (root / "kept").mkdir()
    (root / "kept" / "answer.py").write_text("ANSWER = 42\n")
    write_function(root, "Echo", ECHO, HTTP, REPLY)
    write_function(
        root, "Replies", REPLIES, {**HTTP, "route": "v1/replies/{what}", "methods": ["get", "head"]}, REPLY
    )
    write_function(root, "Hanging", HANGING, HTTP, REPLY)
    write_function(root, "Tick", TICK, {**TIMER, "schedule": "%NEVER%"})
    write_function(root, "BrokenTick", BROKEN_TICK, {**TIMER, "schedule": "%NEVER%"})
    write_function(root, "NoSchedule", TICK, {**TIMER, "schedule": "%MISSING_SCHEDULE%"})
    write_function(root, "WrongSchedule", TICK, {**TIMER, "schedule": "%WRONG%"})
    write_function(root, "NoImport", "import nothing_like_it\n", HTTP, REPLY)
    return root


@pytest.fixture(scope="module")
def host(root: Path) -> Iterator[Running]:
    running = start(root)
    with running.process as process:
        yield running
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_the_root_answers(host: Running) -> None:
    assert host.ask("GET", "/")[0].status == 200


def test_header_names_are_lower_cased_and_repeats_joined(host: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=PATIENCE)
    connection.putrequest("GET", "/Echo")
    for value in ("a", "b"):
        connection.putheader("X-Twice", value)
    connection.endheaders()
    assert json.loads(connection.getresponse().read())["headers"]["x-twice"] == "a,b"
    connection.close()


def test_query_values_are_decoded_joined_and_dropped_when_empty(host: Running) -> None:
    seen = host.echo("/Echo?a=1&a=2&empty=&c=%C3%A6")
    assert seen["params"] == {"a": "1,2", "c": "æ"}
    assert seen["url"] == f"http://127.0.0.1:{host.port}/Echo?a=1&a=2&empty=&c=%C3%A6"


def test_a_body_is_delivered_only_with_its_length(host: Running) -> None:
    assert json.loads(host.ask("POST", "/Echo", body=b"whole")[1])["body"] == "whole"
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=PATIENCE)
    connection.request("POST", "/Echo", iter([b"in ", b"pieces"]), encode_chunked=True)
    assert json.loads(connection.getresponse().read())["body"] == ""
    connection.close()


def test_a_function_without_methods_takes_all_and_has_its_name_as_route(host: Running) -> None:
    assert host.ask("PATCH", "/ECHO")[0].status == 200


def test_a_wrong_method_or_path_is_not_found(host: Running) -> None:
    for method, path in (("POST", "/v1/replies/whole"), ("GET", "/v1/Echo"), ("GET", "/v1/replies")):
        response, body = host.ask(method, path)
        assert (response.status, body) == (404, b"")


def test_the_app_comes_last_on_the_path_and_its_modules_are_found(host: Running, root: Path) -> None:
    seen = host.echo("/Echo")
    assert seen["answer"] == 42
    assert seen["last"] == str(root)
    assert seen["first"] not in {str(root), str(ROOT), ""}


def test_a_setting_of_the_file_counts_where_the_environment_has_none(host: Running, root: Path) -> None:
    assert host.echo("/Echo")["greeting"] == "from the file"
    other = start(root, GREETING="from the environment")
    with other.process as process:
        assert other.echo("/Echo")["greeting"] == "from the environment"
        process.kill()


def test_an_answer_has_the_headers_that_the_function_set(host: Running) -> None:
    response, _ = host.ask("GET", "/Echo")
    assert response.getheader("etag") == '"1"'
    assert response.getheader("content-type") == "application/json"
    assert response.getheader("server") is None
    assert host.ask("GET", "/v1/replies/whole")[0].status == 201


def test_an_unchanged_answer_keeps_its_headers_and_has_no_body(host: Running) -> None:
    response, body = host.ask("GET", "/v1/replies/unchanged")
    assert (response.status, body) == (304, b"")
    assert (response.getheader("etag"), response.getheader("age")) == ('"1"', "7")


def test_cookies_are_not_joined(host: Running) -> None:
    response, _ = host.ask("GET", "/v1/replies/cookies")
    assert response.headers.get_all("set-cookie") == ["a=1; Path=/", "b=2"]


@pytest.mark.parametrize(("what", "length"), [("whole", "5"), ("length", "1234")])
def test_head_has_the_length_and_no_body(host: Running, what: str, length: str) -> None:
    response, body = host.ask("HEAD", f"/v1/replies/{what}")
    assert (response.getheader("content-length"), body) == (length, b"")


def test_head_is_not_derived_from_get_and_the_default_prefix_is_microsofts(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text('{"version": "2.0"}')
    write_function(
        tmp_path,
        "OnlyGet",
        ECHO.replace("from kept.answer import ANSWER", "ANSWER = 1"),
        {**HTTP, "methods": ["get"]},
        REPLY,
    )
    running = start(tmp_path)
    with running.process as process:
        assert running.ask("GET", "/api/onlyget")[0].status == 200
        assert running.ask("GET", "/onlyget")[0].status == 404
        assert running.ask("HEAD", "/api/onlyget")[0].status == 404
        process.terminate()


def test_an_exception_is_500_with_an_empty_body_and_a_stack_in_the_log(host: Running) -> None:
    response, body = host.ask("GET", "/v1/replies/raise")
    assert (response.status, body) == (500, b"")
    lines = host.log_until("RuntimeError: a wall")
    assert all(" ERROR Replies " in line or " INFO " in line for line in lines[-3:])


def test_a_record_of_the_function_is_one_line_with_its_name(host: Running) -> None:
    host.ask("GET", "/Echo?last")
    lines = host.log_until("INFO Echo echo")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO Echo echo [0-9a-f-]{36}", lines[-1])
    assert not any("a record of the system" in line for line in lines)


def test_a_timer_is_fired_by_hand(host: Running) -> None:
    response, body = host.ask("POST", "/admin/functions/tick", body=b'{"input": "ignored"}')
    assert (response.status, body) == (202, b"")
    assert host.log_until(" WARNING Tick tick past_due=False")


def test_a_timer_fired_by_hand_may_be_waited_for(host: Running) -> None:
    assert host.ask("POST", "/admin/functions/Tick", {"Prefer": "wait"})[0].status == 200
    assert host.ask("POST", "/admin/functions/BrokenTick", {"Prefer": "wait"})[0].status == 500


def test_only_timers_are_fired_by_hand(host: Running) -> None:
    for name in ("Nothing", "Echo", "NoSchedule"):
        assert host.ask("POST", f"/admin/functions/{name}")[0].status == 404


def test_a_schedule_that_is_missing_or_wrong_is_named_and_the_other_functions_run(host: Running) -> None:
    log = "\n".join(host.started)
    assert "ERROR NoSchedule function NoSchedule is in error: setting MISSING_SCHEDULE is missing" in log
    assert "ERROR WrongSchedule function WrongSchedule is in error: setting WRONG is no schedule" in log


def test_a_function_that_cannot_be_imported_answers_500_and_says_why(host: Running) -> None:
    assert "No module named 'nothing_like_it'" in "\n".join(host.started)
    assert host.ask("GET", "/NoImport")[0].status == 500


@pytest.mark.parametrize("path", ["/Hanging", "/v1/replies/hang"])
def test_it_ends_in_two_seconds_although_a_request_hangs(root: Path, path: str) -> None:
    running = start(root)
    with running.process as process:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
        connection.request("GET", path)
        running.ask("GET", "/")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stdout
        assert "Traceback" not in process.stdout.read()
        connection.close()


def test_it_ends_with_its_input_when_asked_to(root: Path) -> None:
    running = start(root, "--until-eof")
    with running.process as process:
        assert process.stdin
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_a_port_in_use_is_one_line_that_names_it_and_the_option(host: Running, root: Path) -> None:
    command = [sys.executable, "-m", "dev.host", "--root", str(root), "--port", str(host.port)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert done.stderr == f"port {host.port} is in use; choose another with --port\n"


def test_a_timer_runs_on_its_schedule_and_its_runs_never_overlap(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("{}")
    slow = """
        import logging, threading
        import azure.functions as func

        def main(timer: func.TimerRequest) -> None:
            logging.info("begin")
            threading.Event().wait(1.2)
            logging.info("end")
    """
    write_function(tmp_path, "Slow", slow, {**TIMER, "schedule": "* * * * * *"})
    running = start(tmp_path)
    with running.process as process:
        lines = running.log_until(" begin")
        running.ask("POST", "/admin/functions/Slow")
        lines += running.log_until(" end") + running.log_until(" end")
        process.kill()
    assert [line.rpartition(" ")[2] for line in lines] == ["begin", "end"] * 2


@pytest.mark.parametrize(
    ("schedule", "after", "tick"),
    [
        ("0 5 * * * *", "2026-11-21T07:05:00", "2026-11-21T08:05:00"),
        ("30 0 0 * * *", "2026-11-21T07:05:00", "2026-11-22T00:00:30"),
        ("0 0 0 13 * 5", "2026-11-21T00:00:00", "2027-08-13T00:00:00"),
    ],
)
def test_seconds_come_first_and_both_days_must_fit(schedule: str, after: str, tick: str) -> None:
    instant = datetime.fromisoformat(after + "+00:00")
    assert first_tick(schedule_of(schedule, {}), instant) == datetime.fromisoformat(tick + "+00:00")


def test_a_schedule_of_five_fields_is_at_second_zero() -> None:
    assert schedule_of("%WHEN%", {"WHEN": "5 * * * *"}) == "0 5 * * * *"


@pytest.mark.parametrize("schedule", ["", "x", "* * * * * * *", "0 0 0 30 2 *", "@hourly", "00:05:00"])
def test_a_schedule_that_never_comes_or_is_none_is_refused_with_its_setting(schedule: str) -> None:
    with pytest.raises(HostError, match="setting WHEN"):
        schedule_of("%WHEN%", {"WHEN": schedule})


def test_a_route_that_only_azure_understands_is_refused() -> None:
    with pytest.raises(HostError, match="only Core Tools and Azure"):
        path_of("api", "things/{id:int}")
