"""Annotates instances with owner, project and note, and brings the inventory up to date."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from instances.access import audit
from instances.access.audit import Actor
from instances.costs import labels
from instances.costs.labels import Labels
from instances.errors import InstanceNotFound
from instances.instance import clean_text
from instances.inventory import additions, store
from instances.models import Action, Annotation
from instances.operations.single import check_id


@dataclass(frozen=True)
class Annotated:
    """An instance's annotation, if it has one, and the labels that the instance shows."""

    instance_id: str
    annotation: Annotation | None
    labels: Labels


def find(instance_id: str) -> Annotated:
    """Raises InstanceNotFound for an instance that is neither in the inventory nor annotated."""
    annotation = Annotation.objects.filter(instance_id=clean_text(instance_id, 128)).first()
    _, shown = store.find_instance(instance_id)
    if shown is None and annotation is None:
        raise InstanceNotFound
    name = shown["name"] if shown else annotation.name if annotation else ""
    return Annotated(instance_id, annotation, labels.read_book().find(instance_id, name))


def annotate(instance_id: str, *, owner: str, project: str, note: str, actor: Actor) -> Annotated:
    """Set an instance's annotation; an empty one removes it. Raises InstanceNotFound."""
    with audit.recorded(actor, Action.SET_ANNOTATION, instance_id) as entry:
        check_id(instance_id)
        _, shown = store.find_instance(instance_id)
        before = Annotation.objects.filter(instance_id=instance_id).first()
        if shown is None and before is None:
            raise InstanceNotFound
        name = shown["name"] if shown else before.name if before else ""
        entry.target_name, entry.before = name, _say(before)
        annotation = None
        if owner or project or note:
            annotation, _ = Annotation.objects.update_or_create(
                instance_id=instance_id,
                defaults={
                    "name": clean_text(name, 255),
                    "owner": clean_text(owner.strip()),
                    "project": clean_text(project.strip()),
                    "note": clean_text(note),
                    "changed_by": actor.name[:150],
                    "changed_at": timezone.now(),
                },
            )
        else:
            Annotation.objects.filter(instance_id=instance_id).delete()
        entry.after = _say(annotation)
    return Annotated(instance_id, annotation, _show_labels(instance_id, name))


def _show_labels(instance_id: str, name: str) -> Labels:
    """Give the cached instance its labels, also those that somebody else has set meanwhile; returns them."""
    shown = labels.read_book().find(instance_id, name)
    for _ in range(additions.MAX_ATTEMPTS):
        additions.label(instance_id, shown)
        present = labels.read_book().find(instance_id, name)
        if present == shown:
            break
        shown = present
    return shown


def annotate_many(ids: Sequence[str], *, owner: str, project: str, actor: Actor) -> list[str]:
    """Set owner and project of several instances, and keep their notes. Return those that the inventory lacks."""
    shown = store.find_instances(list(dict.fromkeys(ids)))
    wanted = {"owner": clean_text(owner.strip()), "project": clean_text(project.strip())}
    entries = []
    with transaction.atomic():
        for id_, one in shown.items():
            entry = audit.make_entry(actor, Action.SET_ANNOTATION, id_)
            known = Annotation.objects.filter(instance_id=id_)
            entry.target_name, entry.before = one["name"], _say(known.first())
            changed: dict[str, Any] = {"changed_by": actor.name[:150], "changed_at": timezone.now()}
            values = {**wanted, "name": clean_text(one["name"], 255), **changed}
            if owner or project:
                Annotation.objects.update_or_create(instance_id=id_, defaults=values)
            else:
                known.filter(note="").delete()
                known.update(**values)
            entry.after = _say(known.first())
            entries.append(entry)
    if entries:
        audit.save(entries)
        additions.refresh()
    return [id_ for id_ in dict.fromkeys(ids) if id_ not in shown]


def _say(annotation: Annotation | None) -> str:
    if annotation is None:
        return ""
    named = {"owner": annotation.owner, "project": annotation.project, "note": annotation.note}
    return ", ".join(f"{name} {value}" for name, value in named.items() if value)
