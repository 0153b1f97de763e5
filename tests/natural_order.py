"""Names in the order that the API, the page and its script must all give them."""

from typing import Final

NAMES: Final = [
    "",
    "2",
    "010",
    "10a",
    "Alpha",
    "node-1.2",
    "node-1.10",
    "Node-2",
    # Full-width digits and letters count as the plain ones.
    "ｎｏｄｅ-３",
    "node-4",
    "node-007",
    "node-10",
    "Straße-1",
    "STRASSE-2",
    "train",
    "Train-A",
    "train-b",
    "worker-2",
    "worker-10",
    "worker-10b",
    "worker-99999999999999999999",
    "worker-100000000000000000000",
    # e with an accent, as one character and as two.
    "\u00e9clair-1",
    "e\u0301clair-2",
    "\u00c9clair-10",
    # A private character is after and an emoji after that, though half an emoji has a smaller number.
    "\ue000",
    "🧨",
]
# What is searched, and which names of the list it finds.
SEARCHES: Final = {
    "strasse": ["Straße-1", "STRASSE-2"],
    "E\u0301CLAIR": ["\u00e9clair-1", "e\u0301clair-2", "\u00c9clair-10"],
    "\u00e9clair": ["\u00e9clair-1", "e\u0301clair-2", "\u00c9clair-10"],
    "node-３": ["ｎｏｄｅ-３"],
    "🧨": ["🧨"],
}
