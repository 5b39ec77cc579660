"""What the schedulers are told, and where they are.

- :mod:`.announcer`: who we are and what we hold, to the schedulers
- :mod:`.copies`: what schedulers must hear of copies of imported tasks
- :mod:`.dynconfig`: where the schedulers are
"""
