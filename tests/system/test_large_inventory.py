"""A large inventory in a real Redis: its limits on arguments and on Lua's stack are not those of a Redis in memory."""

import json
import subprocess
import sys

from tests.system.processes import ROOT, Redis

COUNT = 20_000
SCRIPT = f"""
import json, django
django.setup()
from instances.instance import from_json
from instances.inventory import encoding, lease, publishing, store

def publish(ids, status):
    one = from_json({{"id": "-", "status": status}})
    shown = encoding.seal(encoding.encode_facts(one) + encoding.encode_additions(one), "2026-01-15T10:30:00Z")
    listed = {{id_: shown.replace(b'"-"', b'"%b"' % id_.encode()) for id_ in ids}}
    with lease.acquire("test") as held:
        source = publishing.Source(held.token, held.fence, held.began_ms, "test")
        publishing.publish(listed, ids, source)
        return publishing.note_unchanged(store.read_state().generation, ids, source)

ids = [f"{{number:016x}}" for number in range({COUNT})]
print(json.dumps({{
    "noted": [publish(ids, "running"), publish(ids, "toStop")],
    "found": len(store.find_instances(ids)),
    "listed": len(store.read_listing().instances),
    "stored": len(store.read_stored().rows),
    "cleared": store.clear(),
}}))
"""


def test_every_row_of_a_large_inventory_is_written_and_read(environment: dict[str, str], redis_process: Redis) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "noted": [True, True],
        "found": COUNT,
        "listed": COUNT,
        "stored": COUNT,
        "cleared": COUNT,
    }
    assert redis_process.client.info("commandstats")["cmdstat_hscan"]["calls"] >= 2 * COUNT // 1000
