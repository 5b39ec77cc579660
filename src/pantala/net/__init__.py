"""The data plane: pieces over plain TCP in Vortex frames, bulk bytes in threads.

- :mod:`.sockets`: time limits that do not cost blocking mode
- :mod:`.piece_client`: fetches a piece from a parent straight into its place
- :mod:`.piece_server`: serves pieces from where they lie
"""
