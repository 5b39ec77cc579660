"""What of imported tasks outlives a scheduler, and where it is kept.

- :mod:`.store`: what is wanted of a place that keeps rows
- :mod:`.sqlite`: a file that the schedulers of one machine share
- :mod:`.sqlite_file`: what they do with it that is about the file, not about what is in it
- :mod:`.redis`: a Redis that several schedulers share
- :mod:`.layout`: keys and fields in Redis, as Dragonfly's scheduler has them
"""
