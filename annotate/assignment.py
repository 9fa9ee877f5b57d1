"""Who gets which task and for how long: the store's leases with our drawing of sides and our lease time."""

from __future__ import annotations

from annotate.blinding import draw_left
from annotate.services import Services
from store.records import Lease, Person, TaskKind
from store.tasks import lease_task, renew_lease


def assign(services: Services, person: Person, kind: TaskKind) -> Lease | None:
    """The task this person holds or now gets; None when nothing of that kind is left for them."""
    return lease_task(services.store, person.person_id, kind, draw_left, services.settings.lease_s)


def hold(services: Services, person: Person, task_id: str) -> Lease:
    """Hold the task for another full lease time; LeaseLost when it is no longer theirs."""
    return renew_lease(services.store, task_id, person.person_id, services.settings.lease_s)
