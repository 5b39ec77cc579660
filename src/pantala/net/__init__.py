"""The data plane: pieces over plain TCP in Vortex frames, bulk bytes in threads. And two pages.

- :mod:`.addresses`: under which address others reach this machine
- :mod:`.sockets`: time limits that do not cost blocking mode
- :mod:`.piece_client`: fetches a piece from a parent straight into its place
- :mod:`.piece_server`: serves pieces from where they lie
- :mod:`.sending`: a piece on its way to a child, fast or slow
- :mod:`.endpoints`: metrics and health over HTTP
- :mod:`.turns`: threads, of which each address has a share
"""
