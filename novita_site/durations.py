"""Durations that nobody sets from outside. The tests shorten them by settings of their own."""

# --- Novita

# The pause before a failed read is repeated; each further one is twice as long.
NOVITA_FIRST_PAUSE_SECONDS = 0.5
# The limit of calls for metrics is spread over slots of this length.
METRICS_SLOT_SECONDS = 10

# --- Operations and policies

# A process that dies loses its claim on an operation after this time.
OPERATION_CLAIM_SECONDS = 15.0
# Novita has this time to carry out a request that it accepted, before the request is repeated.
OPERATION_PATIENCE_SECONDS = 15.0
# The pause before the second round of an operation, and before a failed request is sent again. Later ones are longer.
OPERATION_PAUSE_SECONDS = 2.0
# A request for an operation is answered after this time, and the rest is requested in the background.
OPERATION_ANSWER_SECONDS = 18.0
# The pause between two looks of a worker for due work. Each is a sign of life, which counts for the second time.
WORKER_TICK_SECONDS = 2.0
WORKER_SIGN_SECONDS = 15
POLICIES_EVALUATE_SECONDS = 30.0

# --- The database

# After this time a stop goes on without the database.
DATABASE_WAIT_SECONDS = 2.0
# A page or a probe may use the result of a test write of this age: each costs disk time.
DATABASE_REMEMBERED_SECONDS = 5.0
# An outage ends after this time without a failure: a database that refuses writes can still be read, so one success
# proves little.
OUTAGE_QUIET_SECONDS = 10.0

# --- Clients

# Deadlines for a client: to send the headers, to send the body, to receive the answer.
HTTP_HEAD_SECONDS = 10.0
HTTP_BODY_SECONDS = 20.0
HTTP_SEND_SECONDS = 60.0
