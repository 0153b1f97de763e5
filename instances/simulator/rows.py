"""Invented clusters, products and instances in the real format. Every secret starts with FAKE-SECRET-."""

import random

from instances.simulator.answers import Row

CLUSTERS: list[Row] = [
    {
        "id": cluster_id,
        "name": name,
        "availableGpuType": ["RTX 4090 24GB", "H100 SXM 80GB"],
        "supportNetworkStorage": True,
        "supportInstanceNetwork": True,
    }
    for cluster_id, name in (
        ("us-ca-6", "US-CA-06 (California)"),
        ("as-sgp-2", "AS-SGP-02 (Singapore)"),
        ("eu-de-1", "EU-DE-01 (Frankfurt)"),
    )
]

# A price is a string or a number in 1e-5 USD per GPU and hour. "0" means unknown (seen, not documented).
PRODUCTS: list[Row] = [
    {
        "id": product_id,
        "name": name,
        "cpuPerGpu": cpus,
        "memoryPerGpu": memory,
        "diskPerGpu": 6144,
        "availableDeploy": "spot" in methods,
        "minRootFS": 10,
        "maxRootFS": 2048,
        "minLocalStorage": 0,
        "maxLocalStorage": 1024,
        "regions": [cluster["name"] for cluster in CLUSTERS] if "spot" in methods else [],
        "price": price,
        "spotPrice": spot_price,
        "monthlyPrice": [{"price": "22000000", "month": 1}] if "monthly" in methods else [],
        "billingMethods": methods,
        "inventoryState": "normal" if "spot" in methods else "none",
        "canBuy": True,
    }
    for product_id, name, cpus, memory, price, spot_price, methods in (
        ("4090.16c62g", "RTX 4090 24GB", 16, 62, "35000", "17500", ["onDemand", "spot", "monthly"]),
        ("26", "RTX 3090 24GB", 16, 62, 21000, "0", ["onDemand"]),
        ("h100.24c240g", "H100 SXM 80GB", 24, 240, "189000", "94500", ["onDemand", "spot", "monthly"]),
        ("a100.16c120g", "A100 SXM4 80GB", 16, 120, "129000", 64500, ["onDemand", "spot", "monthly"]),
        ("l40s.12c64g", "L40S 48GB", 12, 64, "55000", "27500", ["onDemand", "spot", "monthly"]),
    )
]
PURPOSES = ("train-llama", "infer-sdxl", "finetune-qwen", "notebook", "batch-embed", "comfyui", "render")
BILLING_MODES = ["onDemand"] * 6 + ["spot"] * 2 + ["monthly", "onDemand"]

# Statuses of the n-th instance, each with the step at which it begins. With the default step, something moves on the
# page for a minute and a half.
FIRST_MOVES = {
    5: ((0, "pulling"), (45, "running")),
    11: ((0, "toStop"), (20, "stopping"), (40, "exited")),
}

# The statuses of every 25th instance: slow, as a new instance is.
SLOW_CREATION = ((0, "creating"), (60, "pulling"), (75, "running"))


def build_row(number: int, status: str, created_at: int, rng: random.Random) -> Row:
    """Return the n-th instance as the list shows it. Every secret in it starts with FAKE-SECRET-."""
    product, cluster = PRODUCTS[number % len(PRODUCTS)], rng.choice(CLUSTERS)
    billing = BILLING_MODES[number % len(BILLING_MODES)]
    billing = billing if billing in product["billingMethods"] else "onDemand"
    gpus = rng.choice((1, 1, 1, 2, 2, 4, 8))
    instance_id = f"{rng.getrandbits(64):016x}"
    terminated = number % 25 == 17
    started = 0 if status in ("pulling", "creating") else created_at + rng.randrange(60, 240)
    stopped = started + rng.randrange(600, 40_000) if status in ("exited", "toStart") else 0
    volume_id = f"0f0e0d0c-1111-4222-8333-{number:012d}"
    volume = {"type": "network", "size": "100", "id": volume_id, "mountPath": "/network"}
    endpoint = f"https://{instance_id}-8188.{cluster['id']}.example.invalid"
    row = {
        "id": instance_id,
        "name": f"{PURPOSES[number % len(PURPOSES)]}-{number // len(PURPOSES) + 1:02d}",
        "clusterId": cluster["id"],
        "clusterName": cluster["name"],
        "status": status,
        "imageUrl": "docker.io/library/ubuntu:22.04",
        "imageAuthId": "",
        "command": f"FAKE-SECRET-command --token {number}",
        "entrypoint": "FAKE-SECRET-entrypoint" if number % 2 else "",
        "cpuNum": str(product["cpuPerGpu"] * gpus),
        "memory": str(product["memoryPerGpu"] * gpus),
        "gpuNum": str(gpus),
        "portMappings": [{"port": 8188, "endpoint": endpoint, "type": "http"}],
        "productId": product["id"],
        "productName": product["name"],
        "rootfsSize": rng.choice((60, 100, 200)),
        "volumeMounts": [volume] if number % 3 == 0 else [],
        "statusError": {"state": "", "message": ""},
        "envs": [{"key": "HF_TOKEN", "value": f"FAKE-SECRET-env-{number}"}],
        "kind": "gpu",
        "billingMode": billing,
        "endTime": str(created_at + 180 * 86_400) if billing == "monthly" else "-1",
        "spotStatus": ("terminated" if terminated else "running") if billing == "spot" else "",
        "spotReclaimTime": str(stopped - 60) if terminated else "0",
        "createdAt": str(created_at),
        "lastStartedAt": str(started),
        "lastStoppedAt": str(stopped),
        "sshPassword": f"FAKE-SECRET-ssh-{rng.getrandbits(32):08x}" if started else "",
    }
    if status == "creating":
        row["statusError"] = {"state": "ImagePullFailed", "message": "image pull failed"}
    if number % 25 == 22:  # Neither the row nor the list has its price (seen, not documented).
        row["productId"] = "withdrawn"
    elif number % 6 != 2:  # Optional in the list, and a string or a number.
        price = product["spotPrice"] if billing == "spot" else product["price"]
        row["instancePrice"] = int(price) if number % 4 == 3 else str(price)
    return row


def add_details(row: Row) -> Row:
    """Return the row with the fields that only a direct read shows. The row's own fields take precedence."""
    up = row["status"] == "running"
    name = "spotPrice" if row["billingMode"] == "spot" else "price"
    price = next((product[name] for product in PRODUCTS if product["id"] == row["productId"]), "0")
    return {
        "network": {"id": "", "ip": ""},
        "node": {"maxRootfsSize": 2048},
        "jobs": [],
        "connectComponentSSH": {
            "sshCommand": f"FAKE-SECRET-ssh root@{row['id']}",
            "password": row["sshPassword"],
            "isRunning": up,
        },
        "connectComponentWebTerminal": {
            "address": f"FAKE-SECRET-webterm-{row['id']}",
            "username": "FAKE-SECRET-root",
            "password": "FAKE-SECRET-web",
            "isRunning": False,
        },
        "connectComponentJupyter": {
            "port": 8888,
            "address": f"FAKE-SECRET-jupyter-{row['id']}",
            "isRunning": False,
        },
        "connectComponentLog": {
            "systemLogAddress": f"FAKE-SECRET-log-system-{row['id']}",
            "instanceLogAddress": f"FAKE-SECRET-log-instance-{row['id']}",
            "isRunning": up,
        },
        "freeStorageSize": 60,
        "keepDataDay": 7,
        "instancePrice": price,
        "exitedLocalStoragePrice": "500",
        "releaseDataAt": "0",
        **row,
    }
