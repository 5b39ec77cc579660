"""Test kit, shipped so that those who extend pydragonfly can use it too.

content         bytes, files, and patterns of any size that cost no memory
handoff_daemon  the hand-off socket of a daemon, played from a script
origin          a real HTTP origin that counts, and misbehaves when told to
origin_server   the server under it
sources         reading from sources to the end
"""
