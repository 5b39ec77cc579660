"""Bytes to values and back. No sockets here, and nothing that waits.

- :mod:`.vortex`: the frames in which daemons ask each other for pieces
- :mod:`.handoff`: the frames in which a program asks the daemon of its own machine
"""
