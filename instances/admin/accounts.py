"""Users, roles and tokens as admin pages."""

import hashlib
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import (
    AdminPasswordChangeForm,
    AdminUserCreationForm,
    ReadOnlyPasswordHashField,
    ReadOnlyPasswordHashWidget,
    SetUnusablePasswordMixin,
    UserChangeForm,
)
from django.contrib.auth.hashers import is_password_usable
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from instances.access import audit
from instances.access.audit import LOCAL_OWNER, RESERVED_NAMES
from instances.access.roles import find_role, get_role
from instances.access.tokens import DEFAULT_DAYS, MAX_DAYS, create_token
from instances.admin.columns import flag_column, time_column
from instances.admin.filters import NO_ROLE, RoleFilter
from instances.admin.lists import ListAdmin
from instances.models import Action, Token
from novita_site.roles import ROLES, Role


class AccountAdmin(ListAdmin):
    """A page for admins only. Its changes are recorded."""

    # What deleting such a record means.
    deletion = ""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return find_role(request) >= Role.ADMIN

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return find_role(request) >= Role.ADMIN

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return find_role(request) >= Role.ADMIN

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return only the records that have pages. A record that goes with its owner needs no right of its own."""
        listed, counts, _, protected = super().get_deleted_objects(objs, request)
        kinds = {model._meta.verbose_name_plural for model in self.admin_site._registry if model is not self.model}
        refused = {self.opts.verbose_name for one in objs if not self.has_delete_permission(request, one)}
        return listed, {kind: f"{count:,}" for kind, count in counts.items() if kind in kinds}, refused, protected

    def render_delete_form(self, request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
        return super().render_delete_form(request, {**context, "deletion": self.deletion})

    def _record(self, request: HttpRequest, action: str, target: str, **fields: str) -> None:
        audit.save([audit.make_entry(audit.get_actor(request), action, target, **fields)])


class SeenForm(forms.ModelForm):  # type: ignore[type-arg]  # Django takes no argument at run time
    """A form that carries what its page showed: an old page must not set each field to its previous value."""

    seen = forms.CharField(required=False, widget=forms.HiddenInput)
    # The fields of the record that count.
    compared: tuple[str, ...] = ()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._present = self._describe() if self.instance.pk else ""
        self.initial["seen"] = self._present

    def _describe(self) -> str:
        """Return a short text that differs after each change."""
        values = [str(getattr(self.instance, name)) for name in self.compared]
        return hashlib.sha256("\0".join(values).encode("utf-8", "replace")).hexdigest()[:16]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("seen") and cleaned["seen"] != self._present:
            self.add_error(None, "Somebody else has changed this record meanwhile. Open the page again.")
        return cleaned


class _FreeName(forms.ModelForm):  # type: ignore[type-arg]  # Django takes no argument at run time
    def clean_username(self) -> str:
        # Django's own check removes a name that exists.
        name: str = self.cleaned_data.get("username", "")
        if "username" in self.changed_data and name.lower() in RESERVED_NAMES:
            raise forms.ValidationError("This name is reserved. Choose another.")
        return name


# Django's own words name ways to log in that the panel doesn't have.
SINGLE_SIGN_ON: Final = "Without a password, the user can log in by single sign-on alone."


class NewPasswordForm(AdminPasswordChangeForm):  # type: ignore[type-arg]  # likewise
    usable_password_help_text = SINGLE_SIGN_ON


class NewUserForm(_FreeName, AdminUserCreationForm):  # type: ignore[type-arg]  # likewise
    usable_password = SetUnusablePasswordMixin.create_usable_password_field(SINGLE_SIGN_ON)

    def clean_username(self) -> str:
        # Also refuses names that differ only in case.
        AdminUserCreationForm.clean_username(self)
        return super().clean_username()


class _PasswordState(ReadOnlyPasswordHashWidget):
    """Says whether there is a password. Django's own shows how it is stored, too."""

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(name, value, attrs)
        context["summary"] = [{"label": "Set" if is_password_usable(value) else "No login with a password"}]
        return context


class UserForm(SeenForm, _FreeName, UserChangeForm):  # type: ignore[type-arg]  # likewise
    is_own = False
    compared = ("username", "email", "is_active")
    password = ReadOnlyPasswordHashField(label="Password", widget=_PasswordState)
    role = forms.ChoiceField(
        choices=[("", NO_ROLE), *((name, name) for name in ROLES)],
        required=False,
        help_text="viewer: read. operator: also sync, start, stop, restart, protect. admin: everything.",
    )

    class Meta:
        model = User
        fields = ("username", "email", "is_active")

    def _describe(self) -> str:
        return f"{super()._describe()} {get_role(self.instance).label}"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        role = get_role(self.instance) if self.instance.pk else Role.NONE
        self.fields["role"].initial = role.label if role else ""
        if self.instance.is_superuser:
            self.fields["role"].disabled = True
        if self.is_own:
            for name in ("role", "is_active"):
                self.fields[name].disabled = True
                self.fields[name].help_text = "Only another admin can change this for your account."


class PanelUserAdmin(AccountAdmin, UserAdmin):  # type: ignore[type-arg]  # likewise
    """The pages for users. Admins can't remove their own access here, so one admin always remains."""

    purpose = "Who may log in, and with which role."
    deletion = "The user's logins and tokens are refused from now on. To keep the account, clear Active instead."
    form = UserForm
    add_form = NewUserForm
    change_password_form = NewPasswordForm
    fieldsets = ((None, {"fields": ("seen", "username", "password", "email", "role", "is_active")}),)
    readonly_fields = ("last_login", "date_joined")
    list_display = ("username", "email", "shown_role", "shown_active", "shown_login")
    list_filter = ("is_active", ("groups", RoleFilter))
    search_fields = ("username", "email")
    filter_horizontal = ()

    shown_active = flag_column("is_active", "active")
    shown_login = time_column("last_login", "last login")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # The local owner needs no login, so there is nothing to change.
        is_owner = obj is not None and obj.get_username() == LOCAL_OWNER
        return not is_owner and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_kept = obj is not None and (obj.get_username() == LOCAL_OWNER or obj.pk == request.user.pk)
        return not is_kept and super().has_delete_permission(request, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None and not self.has_change_permission(request, obj):
            return ((None, {"fields": ("username", "email", "shown_role", "shown_active")}),)
        return super().get_fieldsets(request, obj)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        form = super().get_form(request, obj, change=change, **options)
        is_own = obj is not None and obj.pk == request.user.pk and self.has_change_permission(request, obj)
        return type("OwnForm", (form,), {"is_own": True}) if is_own else form

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        if id == str(request.user.pk) and request.POST.get("usable_password") == "false":
            raise PermissionDenied("You can't disable your own password. Another admin can.")
        return super().user_change_password(request, id, form_url)

    @admin.display(description="role")
    def shown_role(self, user: User) -> str:
        role = get_role(user)
        return role.label if role else NO_ROLE

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        before = get_role(User.objects.get(pk=obj.pk)).label if change else ""
        super().save_model(request, obj, form, change)
        role = form.cleaned_data.get("role") if isinstance(form, UserForm) else None
        if role is not None and not obj.is_superuser:
            obj.groups.set([Group.objects.get_or_create(name=role)[0]] if role else [])
        after = get_role(User.objects.get(pk=obj.pk)).label
        state = "" if obj.is_active else ", not active"
        action = Action.CHANGE_USER if change else Action.ADD_USER
        self._record(request, action, obj.get_username(), before=before, after=f"{after}{state}")

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        super().delete_model(request, obj)
        self._record(request, Action.DELETE_USER, obj.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for user in queryset:
            self.delete_model(request, user)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        # The page for a new password doesn't call save_model.
        if request.path.endswith("/password/"):
            self._record(request, Action.CHANGE_PASSWORD, str(obj))
        return super().log_change(request, obj, message)


class TokenForm(forms.ModelForm):  # type: ignore[type-arg]  # likewise
    days = forms.IntegerField(
        min_value=1, max_value=MAX_DAYS, initial=DEFAULT_DAYS, help_text="The token expires after this number of days."
    )

    class Meta:
        model = Token
        fields = ("user", "name", "role")

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        user, role = values.get("user"), values.get("role")
        if user and role and ROLES[role] > get_role(user):
            raise forms.ValidationError(f"The user's role is lower than this: {get_role(user).label}.")
        return values


@admin.register(Token)
class TokenAdmin(AccountAdmin):
    purpose = "Keys for scripts. A token acts for its user, with a role of its own, until it expires."
    deletion = "Scripts that use this token are refused from now on."
    change_list_template = "admin/change_list.html"  # without the download of the records
    fields = ("name", "user", "role", "token_key", "created", "expiry", "last_used_at")
    list_display = fields
    list_filter = ("role", "user")
    search_fields = ("name", "user__username")
    list_select_related = ("user",)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        return TokenForm if obj is None else super().get_form(request, obj, change, **options)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("user", "name", "role", "days") if obj is None else self.fields

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"user": request.user.pk, "role": Role.VIEWER.label}

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Token, form: Any, change: bool) -> None:
        token, text = create_token(
            obj.user, obj.name, obj.role, form.cleaned_data["days"], actor=audit.get_actor(request)
        )
        obj.digest, obj.token_key, obj.expiry = token.digest, token.token_key, token.expiry
        obj._text = text  # only for the answer to this request

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        # On this page only. A message would be stored in a cookie or the database until it is shown.
        title = f"Token {obj.name}"
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "token": obj,
            "text": obj._text,
        }
        return TemplateResponse(request, "admin/instances/token/made.html", context)

    def delete_model(self, request: HttpRequest, obj: Token) -> None:
        owner, name, role = obj.user.get_username(), obj.name, obj.role
        super().delete_model(request, obj)
        self._record(request, Action.REVOKE_TOKEN, owner, target_name=name, before=role)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for token in queryset.select_related("user"):
            self.delete_model(request, token)


admin.site.unregister([User, Group])
admin.site.register(User, PanelUserAdmin)
