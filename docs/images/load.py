"""Enqueues the demo's messages as a shop would over a day, a minute standing for an hour; ends after `minutes`."""

from __future__ import annotations

import math
import random
import sys
import time
from datetime import timedelta

from docs.images.demo import import_catalogue, monthly_report, resize_image, send_invoice, track_parcel

MONTHS = ["2026-07", "2026-08", "2026-09", "2026-10"]
SHOPS = ["oslo", "lisbon", "vilnius", "graz", "cork"]


def enqueue_for(minutes: float) -> None:
    began = time.monotonic()
    second = 0
    while time.monotonic() - began < 60 * minutes:
        busy = 1.2 + math.sin(second / 90) + (1.5 if second % 400 > 350 else 0)
        for _ in range(int(random.expovariate(1) * 4 * busy)):
            send_invoice.send(random.randrange(10_000, 99_999))
        for _ in range(int(random.expovariate(1) * 2 * busy)):
            track_parcel.send(f"NO{random.randrange(10**8, 10**9)}")
        resize_image.send_many([resize_image.message(random.randrange(10**6)) for _ in range(int(3 * busy))])
        if second % 40 == 0:
            import_catalogue.send(random.choice(SHOPS), random.randrange(2_000, 14_000))
        if second % 75 == 0:
            monthly_report.send(random.choice(MONTHS))
        if second % 30 == 0:
            send_invoice.send_with_options(args=(4_711 + second,), delay=timedelta(minutes=5))
        second += 1
        time.sleep(max(0.0, began + second - time.monotonic()))


if __name__ == "__main__":
    enqueue_for(float(sys.argv[1]))
