"""What the schedulers are told, and where they are.

- :mod:`.announcer`: who we are and what we hold, to the schedulers
- :mod:`.teller`: what we hold, in batches or each by itself
- :mod:`.announcements`: what other rooms have told
- :mod:`.damage`: a piece is not any more what was verified: it goes, and others are told
- :mod:`.copies`: what schedulers must hear of copies of imported tasks
- :mod:`.dynconfig`: where the schedulers are, and what is blocked
- :mod:`.manager`: a manager that says so
"""
