"""How the log reads: one line an event, each with the id of its request."""

import logging
from contextvars import ContextVar

# The id of the request that this thread answers; "-" outside of one.
request_id: ContextVar[str] = ContextVar("request_id", default="-")


class RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class LineFormatter(logging.Formatter):
    """A message is one line, whatever it quotes: nobody writes a line of our log by a name with a line break."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


class OnlyExceptions(logging.Filter):
    """Keeps Django's line for each 4xx and 5xx answer out: our own lines say what happened, once and not per poll."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.exc_info is not None and record.exc_info[0] is not None
