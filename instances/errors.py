"""Every error that the panel raises, with its HTTP status and code; `answers` turns errors into answers.

The message says what happened and what it means; the suggestion says what to do. Views raise and don't catch. The
exceptions of a library become one of these where the library is called.
"""

from http import HTTPStatus


class PanelError(Exception):
    """An error with an HTTP answer. `retry_after` is in seconds."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    code = "INTERNAL_ERROR"
    message = "The service failed: an internal error."
    suggestion: str | None = None

    def __init__(
        self, message: str | None = None, *, suggestion: str | None = None, retry_after: float | None = None
    ) -> None:
        self.message = message or self.message
        self.suggestion = suggestion or self.suggestion
        self.retry_after = retry_after
        super().__init__(self.message)


class InternalError(PanelError):
    suggestion = "Search the service's log for the requestId of this answer."


# --- The caller's errors


class InvalidRequest(PanelError):
    """`fields` maps each invalid field to a sentence."""

    status = HTTPStatus.BAD_REQUEST
    code = "INVALID_REQUEST"
    message = "The request is not valid, so nothing was done."

    def __init__(self, message: str | None = None, *, fields: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.fields = fields or {}


class NotAuthenticated(PanelError):
    status = HTTPStatus.UNAUTHORIZED
    code = "NOT_AUTHENTICATED"
    message = "Authentication is required."
    suggestion = "Log in at /login/, or send a token in the Authorization header."


class NotAllowed(PanelError):
    status = HTTPStatus.FORBIDDEN
    code = "NOT_ALLOWED"
    message = "You don't have permission to do this."


class TooManyRequests(PanelError):
    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "TOO_MANY_REQUESTS"
    message = "Too many requests: API_RATE_LIMIT is exceeded."
    suggestion = "Send fewer requests. Stops are never limited: one POST /api/instances/stop-all stops many instances."


class CsrfFailed(NotAllowed):
    code = "CSRF_FAILED"
    message = "The page belongs to an earlier login, so nothing was done."
    suggestion = (
        "Reload the page and try again. A script must send an API token in the Authorization header, not a cookie."
    )


class CrossSite(PanelError):
    status = HTTPStatus.FORBIDDEN
    code = "CROSS_SITE"
    message = "The request came from a page of another site, so nothing was done."
    suggestion = "Use this service's own pages, or a script."


class NotFound(PanelError):
    status = HTTPStatus.NOT_FOUND
    code = "NOT_FOUND"
    message = "There is no such address."
    suggestion = "GET /api/ lists the addresses."


class InstanceNotFound(PanelError):
    status = HTTPStatus.NOT_FOUND
    code = "INSTANCE_NOT_FOUND"
    message = "The instance does not exist."
    suggestion = "GET /api/instances lists the instances; a new one appears with the next synchronization."


class MethodNotAllowed(PanelError):
    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "METHOD_NOT_ALLOWED"
    message = "This address does not support this method, so nothing was done."


class NotAcceptable(PanelError):
    status = HTTPStatus.NOT_ACCEPTABLE
    code = "NOT_ACCEPTABLE"
    message = "The service answers in JSON or HTML, and the request accepts neither."
    suggestion = "Send the header Accept: application/json."


class BodyTooLarge(PanelError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "BODY_TOO_LARGE"
    message = "The request body is too large, so nothing was done."
    suggestion = "Send fewer ids in one request."


class HeadTooLarge(PanelError):
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    code = "INVALID_REQUEST"
    message = "The request headers are too large, so nothing was done."
    suggestion = "Delete the cookies of this site, or send fewer headers."


class RequestTimedOut(PanelError):
    status = HTTPStatus.REQUEST_TIMEOUT
    code = "REQUEST_TIMEOUT"
    message = "The request did not arrive in time, so nothing was done."
    suggestion = "Send it again: the headers within 10 s, and the body within 20 s."


class LengthRequired(PanelError):
    status = HTTPStatus.LENGTH_REQUIRED
    code = "LENGTH_REQUIRED"
    message = "The request does not state the length of its body, so nothing was done."
    suggestion = "Send Content-Length, 0 for no body. A proxy in front must use HTTP/1.1."


class BodyEncoded(PanelError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "UNSUPPORTED_MEDIA_TYPE"
    message = "The request body is compressed, which the service does not support, so nothing was done."
    suggestion = "Send it without Content-Encoding."


class BodyNotJson(PanelError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "UNSUPPORTED_MEDIA_TYPE"
    message = "The request body is not declared as JSON in UTF-8, so nothing was done."
    suggestion = "Send JSON with the header Content-Type: application/json, or no body."


class InvalidState(PanelError):
    status = HTTPStatus.CONFLICT
    code = "INVALID_STATE"
    message = "The action is not possible in the instance's current status."


class Protected(PanelError):
    """Somebody protected the instance; the message says why."""

    status = HTTPStatus.CONFLICT
    code = "PROTECTED"
    message = "The instance is protected."
    suggestion = "Remove the protection first: on the dashboard, or with DELETE /api/instances/<id>/protect."


class StartsFrozen(PanelError):
    """An admin froze starts; the message says until when, by whom and why."""

    status = HTTPStatus.CONFLICT
    code = "STARTS_FROZEN"
    message = "Starts are frozen, so nothing was started."
    suggestion = "Wait until the freeze ends, or ask an admin to remove it: DELETE /api/start-freeze."


class NotFrozen(PanelError):
    status = HTTPStatus.CONFLICT
    code = "INVALID_STATE"
    message = "Starts are not frozen."


class OperationNotFound(PanelError):
    status = HTTPStatus.NOT_FOUND
    code = "OPERATION_NOT_FOUND"
    message = "The operation does not exist."
    suggestion = "GET /api/operations lists the recorded operations."


class OperationEnded(PanelError):
    status = HTTPStatus.CONFLICT
    code = "INVALID_STATE"
    message = "The operation has already finished."


class OperationRunning(PanelError):
    status = HTTPStatus.CONFLICT
    code = "OPERATION_RUNNING"
    message = "The operation is still running, so it has no result to dismiss."
    suggestion = "Wait for its result, or cancel the operation."


class NothingToRetry(PanelError):
    status = HTTPStatus.CONFLICT
    code = "INVALID_STATE"
    message = "The operation left no instance unconfirmed, so there is nothing to retry."
    suggestion = "To begin a new operation, send kind and ids, or POST /api/instances/stop-all."


class NothingToRestore(PanelError):
    status = HTTPStatus.CONFLICT
    code = "INVALID_STATE"
    message = "The operation stopped no instance that still exists, so there is nothing to start again."
    suggestion = "Name a finished stop, or send kind and ids."


class PolicyNotFound(PanelError):
    status = HTTPStatus.NOT_FOUND
    code = "POLICY_NOT_FOUND"
    message = "The policy does not exist."
    suggestion = "GET /api/policies lists the policies."


class NameTaken(PanelError):
    status = HTTPStatus.CONFLICT
    code = "NAME_TAKEN"
    message = "Another policy has this name, so nothing was saved."


class PolicyChanged(PanelError):
    status = HTTPStatus.CONFLICT
    code = "POLICY_CHANGED"
    message = "Somebody else has changed or deleted the policy meanwhile, so nothing was saved."
    suggestion = "Read the policy again, then decide."


class FindingNotFound(PanelError):
    status = HTTPStatus.NOT_FOUND
    code = "FINDING_NOT_FOUND"
    message = "The finding does not exist."
    suggestion = "GET /api/policies/findings lists the findings."


class FindingEnded(PanelError):
    status = HTTPStatus.CONFLICT
    code = "INVALID_STATE"
    message = "The finding has ended, or its stop is requested already, so it can't be snoozed."


class LinkNotValid(PanelError):
    status = HTTPStatus.GONE
    code = "LINK_NOT_VALID"
    message = "This link was used already, has expired, or is not complete."
    suggestion = "Snooze on the dashboard, or use the link of a newer message."


class SyncInProgress(PanelError):
    status = HTTPStatus.CONFLICT
    code = "SYNC_IN_PROGRESS"
    message = "A synchronization is already running."
    suggestion = "Wait until it has ended. GET /api/instances then shows its result."


# --- Novita's errors


class NovitaError(PanelError):
    """A request to Novita failed; each subclass is one way to fail."""


class NovitaRejectedKey(NovitaError):
    status = HTTPStatus.BAD_GATEWAY
    code = "NOVITA_REJECTED_KEY"
    message = "Novita rejected the API key."
    suggestion = "Set NOVITA_API_KEY to a valid key of your team, and restart the service."


class NovitaUnavailable(NovitaError):
    status = HTTPStatus.BAD_GATEWAY
    code = "NOVITA_UNAVAILABLE"
    message = "Novita can't be reached, or returned an error."
    suggestion = "Try again in a minute. The last complete listing stays visible."


class NovitaBadAnswer(NovitaError):
    status = HTTPStatus.BAD_GATEWAY
    code = "NOVITA_BAD_ANSWER"
    message = "Novita's answer is not valid."
    suggestion = "Try again in a minute. If the error persists, check NOVITA_BASE_URL."


class NovitaTimeout(NovitaError):
    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "NOVITA_TIMEOUT"
    message = "Novita did not answer in time."
    suggestion = "Try again in a minute. The last complete listing stays visible."


class NovitaRateLimited(NovitaError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "NOVITA_RATE_LIMITED"
    message = "Novita limits the rate of our requests."
    suggestion = "Try again in a minute."


class NovitaRefused(NovitaError):
    """Novita refused the request; the message has its reason."""

    status = HTTPStatus.CONFLICT
    code = "NOVITA_REFUSED"
    message = "Novita refused the request."


class InvalidStateChange(NovitaRefused):
    """Novita's "invalid state change", sometimes also the answer to an action that did take effect."""

    code = "INVALID_STATE"


class InsufficientResource(NovitaRefused):
    code = "INSUFFICIENT_RESOURCE"
    message = "Novita has no free GPU for this instance."
    suggestion = "Try again later, or create an instance in another region."


class NotFoundAtNovita(NovitaError):
    """Novita answered that the instance does not exist: the only evidence of a deletion."""

    status = HTTPStatus.NOT_FOUND
    code = "INSTANCE_NOT_FOUND"
    message = "The instance does not exist at Novita."


# --- Our own


class CacheUnavailable(PanelError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "CACHE_UNAVAILABLE"
    message = "Redis can't be reached."
    suggestion = "Check that Redis is running and REDIS_URL is correct. The service reconnects automatically."


class LeaseLost(PanelError):
    """A synchronization took too long, or its process was suspended: its lease ended before it could publish."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "SYNC_LOST_LOCK"
    message = "The synchronization lost its lease, so its result was discarded. A newer one may have run."
    suggestion = "Start another synchronization."


class ShuttingDown(PanelError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "SHUTTING_DOWN"
    message = "The service is shutting down, so the request was aborted."
    suggestion = "Try again when the service is running."


class DatabaseUnavailable(PanelError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "DATABASE_UNAVAILABLE"
    message = "The database can't be read or written."
    suggestion = (
        "Check that the database is running and not locked, and has disk space and free connections. The service "
        "reconnects automatically."
    )


class SearchTooSlow(PanelError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "SEARCH_TOO_SLOW"
    message = "The search took too long and was given up."
    suggestion = "Choose a date or a filter beside the list first, or search for a longer word."


class TooManySearches(PanelError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "TOO_MANY_SEARCHES"
    message = "Too many pages of records are being read at once."
    suggestion = "Try again in a few seconds."


# --- Backups


class BackupRefused(PanelError):
    status = HTTPStatus.CONFLICT
    code = "BACKUP_REFUSED"
    message = "The backup can't be used."


class BackupFailed(PanelError):
    code = "BACKUP_FAILED"
    message = "The backup failed."
