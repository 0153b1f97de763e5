"""Notification channels, events and messages as admin pages."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminTextInputWidget
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone

from instances.access import audit
from instances.admin.accounts import AccountAdmin, SeenForm
from instances.admin.columns import flag_column, time_column
from instances.admin.deliveries import DeliveryAdmin
from instances.admin.records import RecordAdmin
from instances.errors import InvalidRequest
from instances.models import Action, Channel, Event, EventKind, Message
from instances.notifications import receivers, sealing, sending, webhooks


class ChannelForm(SeenForm):
    compared = ("name", "receiver", "kinds", "is_on")
    url = forms.CharField(
        label="URL",
        max_length=receivers.MAX_URL_LENGTH,
        required=False,
        widget=AdminTextInputWidget,
        help_text="An https URL that receives signed POSTs. It may be secret: it is encrypted, and not shown again.",
    )
    kinds = forms.MultipleChoiceField(
        label="Events",
        choices=[choice for choice in EventKind.choices if choice[0] != EventKind.TEST],
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="None chosen: all.",
    )

    class Meta:
        model = Channel
        fields = ("name", "is_on")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["kinds"].initial = self.instance.kinds
        if self.instance.pk:
            self.fields["url"].help_text = f"Leave it empty to keep the URL at {self.instance.receiver}."

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        if not url and not self.instance.pk:
            raise forms.ValidationError("Enter the URL.")
        if url:
            try:
                webhooks.check_url(url)
            except InvalidRequest as exc:
                raise forms.ValidationError(exc.fields["webhookUrl"]) from exc
        return url


@admin.register(Channel)
class ChannelAdmin(AccountAdmin):
    """The webhooks that receive events. A change is recorded, without the URL."""

    purpose = "URLs that receive events of the panel as signed POSTs."
    deletion = "Nothing more is sent to this channel."
    form = ChannelForm
    change_list_template = "admin/change_list.html"
    list_display = ("name", "receiver", "shown_on", "shown_kinds", "changed_by", "shown_change")
    fields = ("seen", "name", "url", "kinds", "is_on")
    search_fields = ("name", "receiver")

    shown_on = flag_column("is_on", "switched on")
    shown_change = time_column("changed_at", "changed")

    @admin.display(description="events")
    def shown_kinds(self, channel: Channel) -> str:
        return ", ".join(channel.kinds) or "all"

    def save_model(self, request: HttpRequest, obj: Channel, form: Any, change: bool) -> None:
        if url := form.cleaned_data["url"]:
            obj.receiver, obj.sealed_url = receivers.read_url(url).origin, sealing.seal(url)
        obj.kinds = form.cleaned_data["kinds"]
        obj.changed_by, obj.changed_at = audit.get_actor(request).name[:150], timezone.now()
        super().save_model(request, obj, form, change)
        after = f"{obj.receiver}: {', '.join(obj.kinds) or 'all events'}{'' if obj.is_on else ', switched off'}"
        self._record(request, Action.CHANGE_CHANNELS, obj.name, after=after)

    def delete_model(self, request: HttpRequest, obj: Channel) -> None:
        name, receiver = obj.name, obj.receiver
        super().delete_model(request, obj)
        self._record(request, Action.CHANGE_CHANNELS, name, before=receiver)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for channel in queryset:
            self.delete_model(request, channel)


@admin.register(Event)
class EventAdmin(RecordAdmin):
    purpose = "What the panel had to tell people, each event once."
    list_display = ("title", "kind", "shown_time")
    list_filter = ("kind", "created_at")
    search_fields = ("title",)
    fields = ("title", "kind", "shown_lines", "shown_time")
    readonly_fields = ("shown_lines", "shown_time")
    csv_fields = ("created_at", "kind", "title")

    shown_time = time_column("created_at", "when")

    @admin.display(description="text")
    def shown_lines(self, event: Event) -> str:
        return "\n".join(event.lines)


@admin.register(Message)
class MessageAdmin(DeliveryAdmin):
    purpose = "Each event as it was sent to a channel, with all attempts."
    queue = sending.QUEUE
    list_display = ("event", "shown_target", "state", "tries", "shown_next", "shown_end")
    list_filter = ("state", "event__kind")
    list_select_related = ("event", "channel")
    search_fields = ("event__title", "channel__name", "service")
    fields = ("event", "shown_target", "message_id", "state", "tries", "shown_next", "shown_end")
    readonly_fields = ("shown_target", "shown_next", "shown_end")
    csv_fields = ("event__created_at", "event__kind", "event__title", "channel__name", "service", "state", "tries")

    shown_next = time_column("next_attempt_at", "next attempt")
    shown_end = time_column("ended_at", "ended")

    def find_word(self, word: str) -> Q:
        # Without a join of all messages with all events.
        events = Event.objects.filter(title__icontains=word).order_by().values("pk")
        channels = Channel.objects.filter(name__icontains=word).order_by().values("pk")
        return Q(event__in=events) | Q(channel__in=channels) | Q(service__icontains=word)

    @admin.display(description="to")
    def shown_target(self, message: Message) -> str:
        return message.receiver
