"""Partner Center, slow or hanging, and when it was called."""

import time

from dev.simulator import Exchange, Service, World


class Calls(list[float]):
    """The monotonic seconds at which Partner Center was called; watches one world."""

    def __init__(self, world: World) -> None:
        super().__init__()
        world.observer = self

    def __call__(self, exchange: Exchange) -> None:
        """Note the call, if it is one of Partner Center."""
        if exchange.service is Service.PARTNER_CENTER:
            self.append(time.monotonic())


def answer_after(world: World, seconds: float) -> None:
    """Let each call of Partner Center take so long from now on."""
    world.delay = seconds
    world.choose("slow")
