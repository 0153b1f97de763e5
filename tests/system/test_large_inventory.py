"""A large inventory in a real Redis: its limits on arguments and on Lua's stack are not those of a Redis in memory."""

import json
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import requests

from tests.system.conftest import Start
from tests.system.processes import ROOT, Novita, Redis

COUNT = 20_000
SCRIPT = f"""
import json, django, redis
django.setup()
from instances import redis_client
from instances.instance import from_json
from instances.inventory import encoding, lease, publishing, store

def publish(ids, status):
    one = from_json({{"id": "-", "status": status}})
    shown = encoding.seal(encoding.encode_facts(one) + encoding.encode_additions(one), "2026-01-15T10:30:00Z")
    listed = {{id_: shown.replace(b'"-"', b'"%b"' % id_.encode()) for id_ in ids}}
    with lease.acquire("test") as held:
        source = publishing.Source(held, "test")
        publishing.publish(listed, ids, source)
        return publishing.note_unchanged(store.read_state().generation, ids, source)

def read_over_a_failover():
    # The server becomes one that lacks the last writes, in the middle of the read.
    client, hscan = redis_client.get_redis(), redis.Redis.hscan
    (generation,) = client.keys("*:gen:*")
    store._parsed = None
    kept = client.hgetall(generation)

    def lose(*args, **options):
        redis.Redis.hscan = hscan
        part = hscan(*args, **options)
        client.hset(generation, mapping=kept)
        client.replicaof("127.0.0.1", "1")
        client.replicaof("NO", "ONE")
        return part

    client.hset(generation, mapping={{id_: row.replace(b'"name":""', b'"name":"lost"') for id_, row in kept.items()}})
    redis.Redis.hscan = lose
    return sorted({{one["name"] for one in store.read_listing().instances}})

ids = [f"{{number:016x}}" for number in range({COUNT})]
print(json.dumps({{
    "noted": [publish(ids, "running"), publish(ids, "toStop")],
    "found": len(store.find_instances(ids)),
    "listed": len(store.read_listing().instances),
    "stored": len(store.read_stored().rows),
    "names": read_over_a_failover(),
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
        "names": [""],
        "cleared": COUNT,
    }
    assert redis_process.client.info("commandstats")["cmdstat_hscan"]["calls"] >= 2 * COUNT // 1000


# Read in three parts.
MANY = 2500
# The rendered answer, and the rows.
LISTS = ["/api/instances", "/api/instances?ordering=name"]
READINGS, SYNCS, MOST_SYNCS = 20, 4, 60


def read_versions(address: str, found: list[list[str]], is_over: threading.Event) -> None:
    """Read a list again and again. Add the versions of its instances for each answer."""
    with requests.Session() as session:
        while not is_over.is_set():
            answer = session.get(address, timeout=60)
            found.append(re.findall('"imageUrl":"(v[0-9]+)"', answer.text))


def test_no_listing_mixes_two_synchronizations(start_service: Start, novita: Novita) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="0", NOVITA_SYNC_ON_STARTUP="0").wait_until_alive()
    ids = [f"{number:016x}" for number in range(MANY)]
    novita.change(add=[{"id": id_, "imageUrl": "v0"} for id_ in ids])
    assert service.post("/api/instances/sync").ok
    is_over, found = threading.Event(), {path: list[list[str]]() for path in LISTS}

    with ThreadPoolExecutor(len(LISTS)) as pool:
        readers = [pool.submit(read_versions, service.url + path, found[path], is_over) for path in LISTS]
        for number in range(1, MOST_SYNCS):
            novita.change(set={id_: {"imageUrl": f"v{number}"} for id_ in ids})
            assert service.post("/api/instances/sync").ok
            if number >= SYNCS and all(len(answers) >= READINGS for answers in found.values()):
                break
        is_over.set()
        for reader in readers:
            reader.result()

    for answers in found.values():
        assert {len(versions) for versions in answers} == {MANY}
        assert [set(versions) for versions in answers if len(set(versions)) > 1] == []
        assert len(answers) >= READINGS
        assert len({versions[0] for versions in answers}) > 2, "the readers meet several synchronizations"
