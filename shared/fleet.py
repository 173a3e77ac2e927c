"""What all instances share about the usage summary, and who of them may ask Partner Center: one blob.

Every change is one Put Blob on condition of the ETag that was read, so of several instances one wins, and a
late one is refused.
"""

from dataclasses import replace

from shared.blobs import QUICK, Container
from shared.clock import Clock
from shared.errors import BlobConflictError, UsageSummaryError
from shared.fleet_blob import back_off_of, blob_name, claim_of, content_of, read_shared
from shared.held import CLOCK_GRAIN, Answer, Shared

_LONGEST_READING = QUICK + CLOCK_GRAIN  # what takes longer tells no time: neither a claim's end nor an age
_JSON = "application/json; charset=utf-8"


class Fleet:
    """The blob of one partner; every method raises StorageError when Blob Storage fails."""

    def __init__(
        self, container: Container, partner: str, clock: Clock, *, shares_failures: bool = True
    ) -> None:
        """An operator's failures are not shared: another secret or role is wrong than the app's."""
        self._shares_failures = shares_failures
        self._container = container
        self._name = blob_name(partner)
        self._clock = clock

    def read(self) -> Shared:
        """What is shared now; what is damaged counts as absent."""
        began = self._clock.monotonic()
        reading = self._container.read(self._name)
        second = self._clock.monotonic()
        if second - began > _LONGEST_READING.total_seconds():
            return self.read()  # this process has been stopped meanwhile
        return read_shared(reading, second)

    def claim(self, shared: Shared, owner: str) -> Shared | None:
        """Take the claim on what was read; None when another was faster."""
        etag = self._put(shared.answer, claim_of(owner, shared), shared.etag)
        return None if etag is None else replace(shared, etag=etag)

    def release(self, claim: Shared) -> bool:
        """Give the claim back, with which nothing was done; False when it was lost meanwhile."""
        return self._put(claim.answer, {}, claim.etag) is not None

    def back_off(self, claim: Shared, error: UsageSummaryError, until: float) -> bool:
        """Give the claim back, and tell all instances to keep away until a monotonic second, and why.

        False when the claim was lost meanwhile.
        """
        rest = back_off_of(error, claim.instant(until)) if self._shares_failures else {}
        return self._put(claim.answer, rest, claim.etag) is not None

    def publish(self, claim: Shared, answer: Answer) -> bool:
        """Replace answer and claim in one write; False when the claim was lost meanwhile."""
        return self._put(answer, {}, claim.etag) is not None

    def _put(self, answer: Answer | None, claim: dict[str, str], replacing: str | None) -> str | None:
        """Write answer and claim; None when another was faster."""
        body, metadata = content_of(answer)
        metadata |= claim
        try:
            return self._container.write(self._name, body, _JSON, replacing=replacing, metadata=metadata)
        except BlobConflictError:
            # The write may have succeeded, its response been lost, and its repetition refused.
            found = self._container.read(self._name).blob
            if found is None or found.content != body or not metadata.items() <= found.metadata.items():
                return None
            return found.etag
