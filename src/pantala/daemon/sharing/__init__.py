"""Other nodes that want what is here.

- :mod:`.uploads`: pieces for other nodes
- :mod:`.exchange`: which of them may have which piece next
"""
