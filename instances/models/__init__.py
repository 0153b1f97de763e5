"""The records in the database, one file per noun."""

from instances.models.annotation import Annotation, LabelRule
from instances.models.audit import Action, AuditEntry
from instances.models.fields import ReadableEncoder
from instances.models.freeze import StartFreeze
from instances.models.identity import Identity
from instances.models.notification import Channel, Event, EventKind, Message, MessageAttempt
from instances.models.operation import Operation, Target
from instances.models.policy import EvaluationState, Finding, FindingState, FindingStep, Policy, Snooze, SnoozeLink
from instances.models.protection import Protection
from instances.models.sync_run import SyncRun
from instances.models.token import Token
from instances.models.usage import HourSums, LedgerState, MeteredInstance, UsageInterval
from instances.models.webhook import WebhookAttempt, WebhookDelivery

__all__ = [
    "Action",
    "Annotation",
    "AuditEntry",
    "Channel",
    "EvaluationState",
    "Event",
    "EventKind",
    "Finding",
    "FindingState",
    "FindingStep",
    "HourSums",
    "Identity",
    "LabelRule",
    "LedgerState",
    "Message",
    "MessageAttempt",
    "MeteredInstance",
    "Operation",
    "Policy",
    "Protection",
    "ReadableEncoder",
    "Snooze",
    "SnoozeLink",
    "StartFreeze",
    "SyncRun",
    "Target",
    "Token",
    "UsageInterval",
    "WebhookAttempt",
    "WebhookDelivery",
]
