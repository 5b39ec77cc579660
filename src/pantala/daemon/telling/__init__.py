"""What the schedulers are told, and where they are.

- :mod:`.announcer`: who we are and what we hold, to the schedulers
- :mod:`.dynconfig`: where the schedulers are
"""
