"""The functions of :mod:`pantala` itself: the methods of one client that all of a program share."""

from __future__ import annotations

from typing import Final

from .blocking import Client

# It connects when it is first asked, and to no daemon that it was not asked for.
_CLIENT: Final = Client()

array = _CLIENT.array
download = _CLIENT.download
evict = _CLIENT.evict
get = _CLIENT.get
get_into = _CLIENT.get_into
get_ranges = _CLIENT.get_ranges
open = _CLIENT.open
open_file = _CLIENT.open_file
prefetch = _CLIENT.prefetch
refresh = _CLIENT.refresh
stat = _CLIENT.stat
stream = _CLIENT.stream
