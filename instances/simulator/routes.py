"""The supported calls of Novita's API, and the statuses that each action passes through."""

BASE_PATH = "/gpu-instance/openapi/v1"
BILLING_PATH = "/openapi/v1/billing"
METRICS_PATH = "/openapi/v1/metrics/gpu/instance"
ROUTES = {
    f"{BASE_PATH}/gpu/instances": ("GET", "list"),
    f"{BASE_PATH}/gpu/instance": ("GET", "get"),
    f"{BASE_PATH}/gpu/instance/start": ("POST", "start"),
    f"{BASE_PATH}/gpu/instance/stop": ("POST", "stop"),
    f"{BASE_PATH}/gpu/instance/restart": ("POST", "restart"),
    f"{BASE_PATH}/gpu/instance/delete": ("POST", "delete"),
    f"{BASE_PATH}/products": ("GET", "products"),
    f"{BASE_PATH}/clusters": ("GET", "clusters"),
    f"{BILLING_PATH}/balance/detail": ("GET", "balance"),
    f"{BILLING_PATH}/bill/list": ("GET", "bills"),
    METRICS_PATH: ("GET", "metrics"),
}
MOVES = {
    "start": ("toStart", "starting", "running"),
    "stop": ("toStop", "stopping", "exited"),
    "restart": ("toRestart", "restarting", "running"),
    "delete": ("toRemove", "removing", "removed"),
}
STARTING_POINT = {"start": "exited", "stop": "running", "restart": "running"}
ACTIONS = frozenset(MOVES)
CALLS = frozenset(kind for _, kind in ROUTES.values())
