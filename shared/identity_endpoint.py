"""Exchanges with the platform's identity endpoint, which no proxy sees, and which are tried twice.

A request to the endpoint carries a header that stands for the app, most often over plain http. So neither
proxies nor .netrc count here, whatever the address. The endpoint fails now and then, and each run depends on
it. The first try gets a part of the errand's time, so that time for the second is left.
Source of the failures that pass: learn.microsoft.com/entra/identity/managed-identities-azure-resources/
how-to-use-vm-token, "Error handling".
"""

from copy import copy
from datetime import timedelta
from random import uniform
from typing import Any

import requests
from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport

from shared.deadlines import CONNECT_TIMEOUT, Session, retry_after

_PASSING_STATUSES = {404, 410, 429, *range(500, 600)}
# No connection or none in time; no answer or none in time; an answer that breaks off.
_PASSING_FAILURES = ServiceRequestError, ServiceResponseError, HttpResponseError
_FIRST_TRY = 0.3  # of the errand's time, for a connection, and the same for each part of the answer
_LONGEST_WAIT = 0.2  # of the errand's time, for a Retry-After
_WAIT = 0.1, 0.4  # seconds, at random: instances that failed together do not come again together
_READ_TIMEOUT = 20.0  # seconds
_AMPLE = timedelta(minutes=1)  # for the errand of any other session


class EndpointTransport(RequestsTransport):  # type: ignore[misc]  # the SDK has no type for it
    """The transport of a managed identity, which shares a session's deadline."""

    def __init__(self, session: requests.Session) -> None:
        direct = copy(session)  # with the same connections, which end at the same instant
        direct.trust_env = False
        super().__init__(
            session=direct,
            session_owner=False,
            connection_timeout=CONNECT_TIMEOUT,
            read_timeout=_READ_TIMEOUT,
            connection_verify=session.verify,
        )
        allowed = session.time_allowed if isinstance(session, Session) else _AMPLE
        first = (_FIRST_TRY * allowed).total_seconds()
        self._hurried = {
            "connection_timeout": min(first, CONNECT_TIMEOUT),
            "read_timeout": min(first, _READ_TIMEOUT),
        }
        self._longest_wait = _LONGEST_WAIT * allowed

    def send(self, request: Any, **options: Any) -> Any:  # noqa: ANN401  # as RequestsTransport has it
        """The answer to a second try, where the first one failed in a way that passes."""
        wait = timedelta(seconds=uniform(*_WAIT))  # noqa: S311  # no secret
        try:
            response = super().send(request, **options | self._hurried)
        except _PASSING_FAILURES:
            pass
        else:
            wait = max(wait, retry_after(response.headers) or wait)
            if response.status_code not in _PASSING_STATUSES or wait > self._longest_wait:
                return response
        self.sleep(wait.total_seconds())
        return super().send(request, **options)
