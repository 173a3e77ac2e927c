"""The world around the app, over TLS: Entra, Partner Center, Key Vault, the managed identity's endpoint."""

from dev.simulator.application import application
from dev.simulator.records import Exchange, RefreshToken, SecretVersion
from dev.simulator.scenarios import SCENARIOS, Refusal
from dev.simulator.server import Simulator
from dev.simulator.wire import Delivery, Fault, Service
from dev.simulator.world import World

__all__ = [
    "SCENARIOS",
    "Delivery",
    "Exchange",
    "Fault",
    "RefreshToken",
    "Refusal",
    "SecretVersion",
    "Service",
    "Simulator",
    "World",
    "application",
]
