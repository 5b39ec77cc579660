"""The daemon: everything a node does, put together.

- :mod:`.app`: builds everything; reads like a table of contents
- :mod:`.config`: settings: typed, units parsed, unknown keys refused
- :mod:`.node`: what all parts share
- :mod:`.engine`: a request becomes a download
- :mod:`.download`: one caller's download, as the caller sees it
- :mod:`.callers`: everybody who waits for one task
- :mod:`.room`: those who wait for room in memory, in order
- :mod:`.flight`: one task on its way to this node, for all its callers
- :mod:`.transport`: the shell of core.transfer: carries out its commands, and reports back
- :mod:`.race`: those who bring one piece, two at most
- :mod:`.fetching`: carries pieces from parents and the origin into their places
- :mod:`.weights`: what the hosts of parents can still give
- :mod:`.origin`, :mod:`.origins`: the origin as one flight sees it, and as its callers may ask it
- :mod:`.reading`: one reading of an origin whose answers cannot be told apart
- :mod:`.verifier`: digests, and what becomes of a content that is not what they say
- :mod:`.suspects`: who gave contents that were not what a digest says
- :mod:`.uploads`: pieces for other nodes
- :mod:`.announcer`: who we are and what we hold, to the schedulers
- :mod:`.handoff_server`: the socket that passes memory to programs on this machine
- :mod:`.handoff_request`: what they ask for there
- :mod:`.services`: the gRPC services
- :mod:`.output`: writing a file on a gRPC caller's behalf
- :mod:`.hostinfo`, :mod:`.machine`: what this host is and how it feels
- :mod:`.descriptors`: how many descriptors contents and connections may take
- :mod:`.dynconfig`: where the schedulers are
- :mod:`.metrics`: the only module that knows Prometheus
- :mod:`.sockets`: unix sockets that nobody can steal
"""
