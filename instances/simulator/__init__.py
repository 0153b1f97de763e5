"""Stands in for Novita's v1 GPU-instance API on 127.0.0.1, with an account that moves and faults on demand.

It imports nothing of the rest of the project: clients use HTTP, as with the real API. `KINDS` is the table of faults.
A comment says "invented" where neither Novita's documentation nor an answer of the real API is the source.
"""

from instances.simulator.account import Account, make_clock
from instances.simulator.faults import KINDS
from instances.simulator.routes import BASE_PATH, CALLS
from instances.simulator.server import Server, serve, start

__all__ = ["BASE_PATH", "CALLS", "KINDS", "Account", "Server", "make_clock", "serve", "start"]
