"""What of imported tasks, and of jobs, outlives a scheduler, and where it is kept.

- :mod:`.store`: what is wanted of a place that keeps rows
- :mod:`.sqlite`: a file that the schedulers of one machine share
- :mod:`.sqlite_file`: what they do with it that is about the file, not about what is in it
- :mod:`.sqlite_schema`: its tables, and whether it is whole
- :mod:`.living`: which of them are alive
- :mod:`.sqlite_jobs`: jobs in it
- :mod:`.redis`: a Redis that several schedulers share
- :mod:`.redis_link`: the connection to it
- :mod:`.redis_jobs`: jobs in it
- :mod:`.layout`: keys and fields in Redis, as Dragonfly's scheduler has them
- :mod:`.job_layout`: plans, orders and outcomes of jobs as text
"""
