"""Exchanges with the platform's identity endpoint, which no proxy sees, and which are tried twice.

A request to the endpoint carries a header that stands for the app, most often over plain http, and no proxy
has a way to an address of the machine. So neither proxies nor .netrc count here, whatever the address. The
endpoint fails now and then, and each run depends on it.
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

from shared.deadlines import CONNECT_TIMEOUT, retry_after

_PASSING_STATUSES = {404, 410, 429, *range(500, 600)}
# No connection or none in time; no answer or none in time; an answer that breaks off.
_PASSING_FAILURES = ServiceRequestError, ServiceResponseError, HttpResponseError
_FIRST_TRY = 1.5  # seconds for a connection and for each part of the answer: a quick operation has five
_WAIT = 0.1, 0.4  # seconds, at random: instances that failed together do not come again together
_LONGEST_WAIT = timedelta(seconds=1)


class EndpointTransport(RequestsTransport):  # type: ignore[misc]  # the SDK has no type for it
    """The transport of a managed identity, which shares a session's deadline."""

    def __init__(self, session: requests.Session) -> None:
        direct = copy(session)  # with the same connections, which end at the same instant
        direct.trust_env = False
        super().__init__(
            session=direct,
            session_owner=False,
            connection_timeout=CONNECT_TIMEOUT,
            read_timeout=20.0,
            connection_verify=session.verify,
        )

    def send(self, request: Any, **options: Any) -> Any:  # noqa: ANN401  # as RequestsTransport has it
        """The answer to a second try, where the first one failed in a way that passes."""
        hurried = {"connection_timeout": _FIRST_TRY, "read_timeout": _FIRST_TRY}
        wait = timedelta(seconds=uniform(*_WAIT))  # noqa: S311  # no secret
        try:
            response = super().send(request, **options | hurried)
        except _PASSING_FAILURES:
            pass
        else:
            wait = max(wait, retry_after(response.headers) or wait)
            if response.status_code not in _PASSING_STATUSES or wait > _LONGEST_WAIT:
                return response
        self.sleep(wait.total_seconds())
        return super().send(request, **options)
