"""Stands in for Novita's v1 GPU-instance API on 127.0.0.1, with an account that moves and faults on demand.

Knows nothing of the rest of the project: whoever talks to it goes over HTTP, as with the real one. `KINDS` is
the table of faults. What neither Novita's documentation nor the real API's answers tell is called invented.
"""

from instances.simulator.account import Account
from instances.simulator.faults import KINDS
from instances.simulator.routes import BASE_PATH, CALLS
from instances.simulator.server import Server, start

__all__ = ["BASE_PATH", "CALLS", "KINDS", "Account", "Server", "start"]
