"""A program's end of the hand-off socket: what ``dfget`` and the SDK are made of.

Pure, and shared by all:

- :mod:`.channel`: bytes in, events out
- :mod:`.arrival`: the events of one download, checked

Those that wait:

- :mod:`.connection`: the socket; who dials, sends and receives
- :mod:`.personal`: a daemon of one's own where the machine has none
- :mod:`.output`: a file that appears whole or not at all, or a stream
- :mod:`.saving`: a daemon's events become an output
"""
