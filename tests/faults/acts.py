"""What rows of the table are made of: what services answer, how they break, what people do about it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import trustme

from dev.simulator import Delivery, Fault, Service, World
from dev.simulator.wire import JSON
from tests.faults.gate import Talk, behind_tls
from tests.faults.scene import Certificates, Scene

type Act = Callable[[Scene], object]

PC, ENTRA, VAULT, IDENTITY = Service.PARTNER_CENTER, Service.ENTRA, Service.KEY_VAULT, Service.IDENTITY
HANGS, DRIPS, RESETS = Delivery.NEVER, Delivery.DRIPPING, Delivery.RESET


@dataclass(frozen=True)
class Scenario:
    """One of the simulator's, by name."""

    name: str

    def __call__(self, scene: Scene) -> None:
        scene.world.choose(self.name)


@dataclass(frozen=True)
class Together:
    """One after the other."""

    acts: tuple[Act, ...]

    def __call__(self, scene: Scene) -> None:
        for act in self.acts:
            act(scene)


def together(*acts: Act) -> Act:
    return Together(acts)


def hurried(module: str, act: Act, longest: timedelta = timedelta.max) -> Act:
    """The deadlines of a module of shared/ come at once, and the clock says that their time is over."""
    return together(lambda scene: scene.hurry(f"shared.{module}.session_for", longest), act)


def scenarios_of(act: Act) -> set[str]:
    """The scenarios that an act chooses."""
    match act:
        case Scenario(name):
            return {name}
        case Together(acts):
            return {name for each in acts for name in scenarios_of(each)}
        case _:
            return set()


def world(change: Callable[[World], object]) -> Act:
    return lambda scene: change(scene.world)


def breaks(fault: Fault) -> Act:
    return lambda scene: scene.world.faults.update({fault.service: fault})


def delivers(service: Service, delivery: Delivery, method: str | None = None) -> Act:
    return breaks(Fault(service, delivery=delivery, method=method))


def answers(
    service: Service, status: int, body: bytes = b"", method: str | None = None, **headers: str
) -> Act:
    named = {"content-type": JSON} | {name.replace("_", "-"): text for name, text in headers.items()}
    return breaks(Fault(service, status, lambda _: body, named, method=method))


def says(body: bytes, **headers: str) -> Act:
    """Partner Center answers 200 with this."""
    return answers(PC, 200, body, **headers)


def refuses(error: str, number: int = 0) -> Act:
    """Entra's token endpoint answers with an OAuth error."""
    return answers(ENTRA, 400, json.dumps({"error": error, "error_codes": [number]}).encode(), "POST")


def talks(talk: Talk) -> Act:
    """Who is at the gate talks so to each caller."""
    return lambda scene: scene.gate.open(talk)


def shows(which: Callable[[Certificates], trustme.LeafCert], talk: Talk) -> Act:
    """Who is at the gate shows a certificate first."""
    return lambda scene: scene.gate.open(behind_tls(which(scene.certificates), talk))


def as_always(_: Scene) -> None:
    """Nothing is broken, or nothing more. A gate that nobody opens refuses connections."""


def consents_again(scene: Scene) -> None:
    """A person signs in with MFA; all else stays as it is."""
    scene.world.consent()
