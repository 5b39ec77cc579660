"""What this machine has, and how it feels.

- :mod:`.hostinfo`, :mod:`.machine`: what this host is and how it feels
- :mod:`.descriptors`: how many descriptors tasks and connections may take
- :mod:`.threads`: its threads, by what they wait for
- :mod:`.storage`: the stores that the settings want, and what goes from them when
- :mod:`.sockets`: unix sockets that nobody can steal, and a host id that only one daemon has
"""
