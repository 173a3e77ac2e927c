"""The world around the app, over TLS: Entra, Partner Center, Key Vault, the managed identity's endpoint."""

from dev.simulator.scenarios import SCENARIOS, Refusal
from dev.simulator.server import Simulator, application
from dev.simulator.wire import Delivery, Fault, Service
from dev.simulator.world import Exchange, RefreshToken, SecretVersion, World

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
