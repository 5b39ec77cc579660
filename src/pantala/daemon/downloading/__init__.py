"""How content comes to this node.

- :mod:`.engine`: a request becomes a download
- :mod:`.means`: what downloads share, and no other room has
- :mod:`.download`: one caller's download, as the caller sees it
- :mod:`.callers`: everybody who waits for one task
- :mod:`.room`: those who wait for room, in order
- :mod:`.flight`: one task on its way to this node, for all its callers
- :mod:`.checking`: what is here is read once more before it is relied on
- :mod:`.comparing`: whether what is here is what its origin has
- :mod:`.describing`: what a file is, by the words of its origin and of the swarm
- :mod:`.growing`: a file whose length shows at its end
- :mod:`.trailing`: one that another host reads, followed as it comes
- :mod:`.driver`: the shell of core.transfer: carries out its commands, and reports back
- :mod:`.digests`: what its pieces must be, by the word of whoever read the origin
- :mod:`.announcing`: the announce stream of a flight: how it begins, what is told, what ends it
- :mod:`.race`: those who bring one piece, two at most
- :mod:`.following`: who has what: the parents that are followed
- :mod:`.hearing`: what those have that follow this host, if they are who they say
- :mod:`.wants`: what those that exchange are told of what is wanted here
- :mod:`.fetching`: carries pieces from parents and the origin into their places
- :mod:`.weights`: what the hosts of parents can still give
- :mod:`.origin`, :mod:`.origins`: the origin as one flight sees it, and as its callers may ask it
- :mod:`.sources`: one for each scheme, counted
- :mod:`.reading`: one reading of an origin whose answers cannot be told apart
- :mod:`.verifier`: digests, and what becomes of content that is not what they say
- :mod:`.suspects`: who gave content that was not what a digest says
"""
