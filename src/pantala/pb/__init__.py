"""Generated from proto/ by scripts/gen_proto.py. Never edited; imported by ``rpc`` and its users."""
