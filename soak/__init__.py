"""A panel under load while its processes are killed: `make soak`. Never part of the tests, since it takes minutes.

`checks` says what must hold at the end, `schedule` what happens when, `account` is Novita, `panel` the processes,
`load` the people who use them, `receiver` the team that is told.
"""
