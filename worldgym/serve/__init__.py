"""Dreams over a network: one batched world, a session for each client.

worldgym serve tabletop                              the server: `server.py` around `table.py`
gym.make("worldgym/Remote-v0", address="127.0.0.1:8765")     a client: `client.py`, which needs no torch
"""
