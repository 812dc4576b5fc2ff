"""The parts that the routes of one worker process share."""

from __future__ import annotations

from affekt.serving.admission import Admission
from affekt.serving.engine import Engine
from affekt.serving.metrics import Metrics
from affekt.serving.settings import ServiceSettings


class Service:
    """The settings, the engine, its queue and the metrics.

    Raises:
        BadBundle, BadConfig: As `Engine`.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.admission = Admission(settings.limits)
        self.engine = Engine(settings, self.admission)
        self.metrics = Metrics()
