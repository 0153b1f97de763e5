"""`python -m instances.simulator PORT INSTANCES`: the account that `manage.py up` simulates.

`manage.py novita_simulator` has more options. It loads Django, which takes 0.5 s.
"""

import sys

from instances import simulator

if __name__ == "__main__":
    port, instances = map(int, sys.argv[1:])
    simulator.serve(simulator.Account(instances=instances), port, 0.0, lambda line: sys.stdout.write(f"{line}\n"))
