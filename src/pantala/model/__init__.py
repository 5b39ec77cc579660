"""Values: frozen, compared by content, no I/O.

- :mod:`.exchange`: what a parent and a child tell each other of pieces
- :mod:`.growth`: what a host is told of content whose length nobody knows yet
- :mod:`.ids`: how host, peer and task ids are made and checked
- :mod:`.addresses`: addresses as text
- :mod:`.notation`: task ids, ``crc32:…``, ``sha256:…`` and ``0-99`` as they are written
- :mod:`.digest`: computing such digests
- :mod:`.pieces`: piece length, which pieces cover a range
- :mod:`.numbers`: sets of piece numbers
- :mod:`.images`: images in registries, and their manifests
- :mod:`.filtered`: query parameters that are no part of an identity
- :mod:`.headers`: headers that no caller decides, and those that decide the content
- :mod:`.task`: kinds, requests, and what metadata remembers of a task and a piece
- :mod:`.names`: what a file is called that came from a URL
- :mod:`.urls`: URLs as others may see them
- :mod:`.cluster`: what those who run a cluster want of it
- :mod:`.announce`: what a peer and its scheduler tell each other of a download
- :mod:`.units`: sizes and durations as people write them
"""
