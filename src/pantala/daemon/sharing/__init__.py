"""Other nodes that want what is here.

- :mod:`.uploads`: pieces for other nodes
"""
