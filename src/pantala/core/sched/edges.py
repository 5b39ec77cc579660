"""Edges between parents and children, and what a parent's host is charged for them."""

from __future__ import annotations

from .entities import Edge, Peer


def connect(parent: Peer, child: Peer) -> None:
    """*child* may fetch from *parent*. The caller sees to it that no circle comes to be.

    The host is charged for as many pieces at once as the child fetches, all in one second.
    """
    pieces = child.concurrent_pieces
    edge = Edge(
        parent=parent,
        child=child,
        tx_bandwidth=child.shape.piece_length * pieces * 8,
        content_length=child.shape.content_length,
        pieces=pieces,
    )
    parent.children[child.id] = child.parents[parent.id] = edge
    host = parent.host
    host.tx_bandwidth += edge.tx_bandwidth
    host.upload_content_length += edge.content_length
    host.concurrent_pieces += edge.pieces
    host.uploads += 1
    host.upload_count += 1
    host.quality = None


def disconnect(edge: Edge) -> None:
    """Take back :func:`connect`, to the byte, whatever has become of both since."""
    del edge.parent.children[edge.child.id]
    del edge.child.parents[edge.parent.id]
    host = edge.parent.host
    host.tx_bandwidth -= edge.tx_bandwidth
    host.upload_content_length -= edge.content_length
    host.concurrent_pieces -= edge.pieces
    host.uploads -= 1
    host.quality = None


def disconnect_parents(child: Peer) -> None:
    """*child* fetches from nobody any more; its parents' hosts are charged no longer."""
    for edge in list(child.parents.values()):
        disconnect(edge)


def disconnect_children(parent: Peer) -> list[Peer]:
    """Nobody fetches from *parent* any more. Returns who did."""
    edges = list(parent.children.values())
    for edge in edges:
        disconnect(edge)
    return [edge.child for edge in edges]
