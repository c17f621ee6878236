"""Makes the bench's change as a Django project would. Prints the rows changed and the seconds it took.

usage: django_peer.py check
       django_peer.py tasks|bulk HOST PORT DATABASE ROWS

tasks: a task of the package django-maintenance-tasks, with its own defaults; its runner saves row by row.
bulk:  by hand, 1,000 rows at a time with bulk_update, each time in a transaction of its own.
"""

import sys
import time

import django
from django.conf import settings

HOW = sys.argv[1]
HOST, PORT, DATABASE, ROWS = sys.argv[2:] if HOW != "check" else ("", "0", "", "0")
BATCH = 1000

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "maintenance_tasks"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": HOST,
            "PORT": PORT,
            "NAME": DATABASE,
            "USER": "postgres",
        }
    },
    TASKS={"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}},
    # A run longer than this goes on in another job, which here would be a deeper call.
    MAINTENANCE_TASKS={"MAX_RUNTIME": 86400},
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import models, transaction  # noqa: E402
from maintenance_tasks import MaintenanceTask, runner  # noqa: E402


class Order(models.Model):
    id = models.BigIntegerField(primary_key=True)
    customer_id = models.IntegerField()
    region = models.TextField()

    class Meta:
        app_label = "bench"
        db_table = "orders"
        managed = False


def wrong():
    return Order.objects.filter(region="unknown", id__lte=int(ROWS))


def mend(order):
    order.region = "north" if order.customer_id % 2 == 0 else "south"


class Repair(MaintenanceTask):
    def collection(self):
        return wrong()

    def process(self, order):
        mend(order)
        order.save(update_fields=["region"])


def by_hand():
    last = 0
    while orders := list(wrong().filter(id__gt=last).order_by("id")[:BATCH]):
        for order in orders:
            mend(order)
        with transaction.atomic():
            Order.objects.bulk_update(orders, ["region"])
        last = orders[-1].id


def main():
    if HOW == "check":
        import psycopg  # noqa: F401

        print(django.get_version())
        return
    call_command("migrate", verbosity=0)
    before = wrong().count()
    began = time.monotonic()
    if HOW == "tasks":
        run = runner.start(Repair.name)
        run.refresh_from_db()
        if run.status != "succeeded":
            sys.exit(f"the run ended as {run.status}: {run.error_message}")
    else:
        by_hand()
    took = time.monotonic() - began
    print(before - wrong().count(), took)


main()
