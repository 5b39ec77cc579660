"""A piece that is held is not any more what was verified."""

from __future__ import annotations

import structlog

from pantala.errors import Damaged
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.stores import Stores

from .announcements import Announcements

logger = structlog.get_logger(__name__)


def drop(
    holding: Holding, number: int, error: Damaged, *, stores: Stores, announcements: Announcements
) -> None:
    """Have a damaged piece here no more, and tell others.

    The task goes with it where that holds for all of its content.
    """
    logger.error("piece damaged", task=holding.id, piece=number, why=str(error))
    if not holding.gone and number in holding.pieces:
        announcements.damaged(holding)  # by the name that its copy had
        if error.whole:
            stores.remove(holding, Reason.LOST)
        else:
            holding.drop(number)
