"""Files of this machine that become tasks.

- :mod:`.importer`: an import from the first word to the scheduler to the last
- :mod:`.reading`: what threads do of it: hashing a file, and copying it into the store
"""
