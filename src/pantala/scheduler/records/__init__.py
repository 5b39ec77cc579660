"""What of imported tasks outlives a scheduler, and where it is kept.

- :mod:`.store`: what is wanted of a place that keeps rows
- :mod:`.sqlite`: a file of this scheduler's alone
- :mod:`.redis`: a Redis that several schedulers share
- :mod:`.layout`: keys and fields in Redis, as Dragonfly's scheduler has them
"""
