"""Every error that the panel raises, with its HTTP status and code; `answers` turns errors into answers.

Code raises; no view catches. The exceptions of a library become one of these where the library is called.
"""

from http import HTTPStatus


class PanelError(Exception):
    """An error with an answer. `suggestion` says what the reader can do; `retry_after` is in seconds."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    code = "INTERNAL_ERROR"
    message = "Something went wrong in the service itself."
    suggestion: str | None = None

    def __init__(
        self, message: str | None = None, *, suggestion: str | None = None, retry_after: float | None = None
    ) -> None:
        self.message = message or self.message
        self.suggestion = suggestion or self.suggestion
        self.retry_after = retry_after
        super().__init__(self.message)


# --- The caller's errors


class InvalidRequest(PanelError):
    """`fields` maps each wrong field to a sentence."""

    status = HTTPStatus.BAD_REQUEST
    code = "INVALID_REQUEST"
    message = "The request can't be understood."

    def __init__(self, message: str | None = None, *, fields: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.fields = fields or {}


class NotAuthenticated(PanelError):
    status = HTTPStatus.UNAUTHORIZED
    code = "NOT_AUTHENTICATED"
    message = "Log in first."
    suggestion = "Log in at /login/, or send a token in the header Authorization."


class NotAllowed(PanelError):
    status = HTTPStatus.FORBIDDEN
    code = "NOT_ALLOWED"
    message = "You are not allowed to do this."


class TooManyRequests(PanelError):
    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "TOO_MANY_REQUESTS"
    message = "You send more than API_RATE_LIMIT allows."
    suggestion = "Slow down. A stop is never refused: POST /api/instances/stop-all stops many with one request."


class CsrfFailed(NotAllowed):
    """The CSRF token is missing, or of an earlier login."""

    code = "CSRF_FAILED"
    message = "Nothing was done: this was sent with a login, but not by a page of that login."
    suggestion = (
        "Reload the page and try again. A script sends an API token in the header Authorization, not a login's cookie."
    )


class CrossSite(PanelError):
    status = HTTPStatus.FORBIDDEN
    code = "CROSS_SITE"
    message = "Another site's page sent this request, so nothing was done."
    suggestion = "Act on this service's own pages, or from a script."


class NotFound(PanelError):
    status = HTTPStatus.NOT_FOUND
    code = "NOT_FOUND"
    message = "There is nothing at this address."
    suggestion = "GET /api/ lists what there is."


class InstanceNotFound(PanelError):
    status = HTTPStatus.NOT_FOUND
    code = "INSTANCE_NOT_FOUND"
    message = "There is no such instance."
    suggestion = "GET /api/instances lists those that exist; a new one appears with the next sync."


class MethodNotAllowed(PanelError):
    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "METHOD_NOT_ALLOWED"
    message = "This address doesn't take this method."


class NotAcceptable(PanelError):
    status = HTTPStatus.NOT_ACCEPTABLE
    code = "NOT_ACCEPTABLE"
    message = "The service answers in JSON, or in HTML to a browser."


class BodyTooLarge(PanelError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "BODY_TOO_LARGE"
    message = "The request's body is too large."


class HeadTooLarge(PanelError):
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    code = "INVALID_REQUEST"
    message = "The request's headers are too large."


class RequestTimedOut(PanelError):
    status = HTTPStatus.REQUEST_TIMEOUT
    code = "REQUEST_TIMEOUT"
    message = "The request did not arrive in time, so nothing was done."
    suggestion = "Send it again, headers within 10 s and the body within 20 s."


class LengthRequired(PanelError):
    status = HTTPStatus.LENGTH_REQUIRED
    code = "LENGTH_REQUIRED"
    message = "The request doesn't say how long its body is, so nothing was done."
    suggestion = "Send Content-Length; 0 for no body. A proxy in front should speak HTTP/1.1."


class BodyEncoded(PanelError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "UNSUPPORTED_MEDIA_TYPE"
    message = "The request's body is compressed, and the service doesn't decompress bodies."
    suggestion = "Send it without Content-Encoding."


class BodyNotJson(PanelError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "UNSUPPORTED_MEDIA_TYPE"
    message = "The request's body must be JSON in UTF-8, or there must be none."
    suggestion = "Send the header Content-Type: application/json."


class InvalidState(PanelError):
    status = HTTPStatus.CONFLICT
    code = "INVALID_STATE"
    message = "This is not possible in the instance's present status."


class Protected(PanelError):
    """Somebody protected the instance; the message says why."""

    status = HTTPStatus.CONFLICT
    code = "PROTECTED"
    message = "The instance is protected."
    suggestion = "Remove its protection first: DELETE /api/instances/<id>/protect, or on the dashboard."


class OperationNotFound(PanelError):
    status = HTTPStatus.NOT_FOUND
    code = "OPERATION_NOT_FOUND"
    message = "There is no such operation."
    suggestion = "GET /api/operations lists those that are recorded."


class OperationEnded(PanelError):
    status = HTTPStatus.CONFLICT
    code = "INVALID_STATE"
    message = "The operation has finished already."


class NothingToRetry(PanelError):
    status = HTTPStatus.CONFLICT
    code = "INVALID_STATE"
    message = "Nothing of this operation is left unconfirmed, so there is nothing to retry."
    suggestion = "Send kind and ids to begin a new operation, or POST /api/instances/stop-all."


class SyncInProgress(PanelError):
    status = HTTPStatus.CONFLICT
    code = "SYNC_IN_PROGRESS"
    message = "A synchronization is already running."
    suggestion = "Wait for it to end; its result appears in GET /api/instances."


# --- Novita's errors


class NovitaError(PanelError):
    """Any way in which Novita did not do what was asked. Each subclass is one way."""


class NovitaRejectedKey(NovitaError):
    status = HTTPStatus.BAD_GATEWAY
    code = "NOVITA_REJECTED_KEY"
    message = "Novita refuses the API key."
    suggestion = "Set NOVITA_API_KEY to a valid key of the team and restart the service."


class NovitaUnavailable(NovitaError):
    status = HTTPStatus.BAD_GATEWAY
    code = "NOVITA_UNAVAILABLE"
    message = "Novita can't be reached or is broken."
    suggestion = "Try again in a minute; the last good listing, if there is one, stays visible meanwhile."


class NovitaBadAnswer(NovitaError):
    status = HTTPStatus.BAD_GATEWAY
    code = "NOVITA_BAD_ANSWER"
    message = "Novita's answer can't be understood."
    suggestion = "Try again in a minute; if it stays, check NOVITA_BASE_URL."


class NovitaTimeout(NovitaError):
    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "NOVITA_TIMEOUT"
    message = "Novita did not answer in time."
    suggestion = "Try again in a minute; the last good listing, if there is one, stays visible meanwhile."


class NovitaRateLimited(NovitaError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "NOVITA_RATE_LIMITED"
    message = "Novita limits our calls."
    suggestion = "Try again later."


class NovitaRefused(NovitaError):
    """Novita understood and said no; its own words are in the message."""

    status = HTTPStatus.CONFLICT
    code = "NOVITA_REFUSED"
    message = "Novita refused."


class InvalidStateChange(NovitaRefused):
    """Novita's "invalid state change", which it sometimes says of an action that did take effect."""

    code = "INVALID_STATE"


class InsufficientResource(NovitaRefused):
    code = "INSUFFICIENT_RESOURCE"
    message = "Novita has no free GPU for this."
    suggestion = "Try again later, or create an instance in another region."


class NotFoundAtNovita(NovitaError):
    """Novita answered that there is no such instance: the only proof of a deletion."""

    status = HTTPStatus.NOT_FOUND
    code = "INSTANCE_NOT_FOUND"
    message = "Novita knows no such instance."


# --- Our own


class CacheUnavailable(PanelError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "CACHE_UNAVAILABLE"
    message = "Redis can't be reached."
    suggestion = "Check that Redis runs and REDIS_URL is right; the service recovers by itself."


class LeaseLost(PanelError):
    """The sync took so long, or slept, that its lock ended: what it read is not published."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "SYNC_LOST_LOCK"
    message = "The synchronization lost its lock, so its result was dropped; a newer one may have run."
    suggestion = "Start it again."


class ShuttingDown(PanelError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "SHUTTING_DOWN"
    message = "The service is shutting down, so this was given up."
    suggestion = "Try again when it is back."


class DatabaseUnavailable(PanelError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "DATABASE_UNAVAILABLE"
    message = "The database can't be used."
    suggestion = "Check that it runs, isn't locked and has disk space; the service recovers by itself."
