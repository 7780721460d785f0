"""The dashboard in a real browser, served by `worker web`, with real workers behind it.

Whatever a test does, the browser must have nothing to complain of: no error of a script, nothing that the content
security policy forbids, no request to another server.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from urllib.parse import quote

import dramatiq
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support import shop as actors
from tests.support.browser import DESKTOP, PHONE, browsing, visiting
from tests.support.project import ROOT, WORKER, Project
from tests.support.shop import HOSTILE
from tests.support.waiting import wait_until
from worker.history.filters import MessageFilter
from worker.history.overview import queues
from worker.history.query import all_messages, ask, one_message

# The browser's driver has a loop in this thread; its greenlets wait while a test sends.
pytestmark = pytest.mark.filterwarnings("ignore:a send blocks the running event loop")

PAGES = ["/", "/messages", "/running", "/delayed", "/dead", "/workers", "/queues", "/repositories", "/live", "/audit"]
TOKEN, READ_TOKEN = "a token to act with", "a token to look with"
SEND_MANY = """
import sys
from tests.support.shop import post
post.send_many(post.message(number) for number in range(int(sys.argv[1])))
"""


class Shop(Project):
    """A project with the shop's workers and three dashboards.

    Attributes:
        url: One that needs no token and shows arguments and tracebacks.
        guarded: One that needs a token, and shows neither.
        mounted: One below a path of another application.
    """

    url: str
    guarded: str
    mounted: str

    def state(self, message_id: str) -> str:
        """The message's state."""
        found = ask(self.client, one_message(message_id))
        return found.state if found is not None else "unknown"

    def becomes(self, message_id: str, state: str) -> None:
        """Waits until it is in that state."""
        wait_until(lambda: self.state(message_id) == state)

    def make(self, file: str) -> None:
        """Opens a gate."""
        (self.folder / file).touch()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop, open."""
    folder = tmp_path_factory.mktemp("shop")
    made = Shop(folder, WORKER_ACTORS="tests.support.shop", PYTHONPATH=str(ROOT), SHOP_FOLDER=str(folder))
    web = [WORKER, "web", "--port", "0", "--json"]
    tokens = [f"WORKER_WEB_TOKEN={TOKEN}", f"WORKER_WEB_READ_TOKEN={READ_TOKEN}"]
    pool = ["-m", "dramatiq", "tests.support.shop", "--processes", "1", "--threads", "4"]
    with (
        made.background(sys.executable, *pool),
        made.background("/usr/bin/env", "WORKER_WEB_SHOW_ARGUMENTS=true", *web),
    ):
        made.url = made.served(0)
        with made.background("/usr/bin/env", *tokens, *web):
            made.guarded = made.served(1)
            with made.background("/usr/bin/env", sys.executable, "-m", "tests.support.mounted"):
                made.mounted = made.served(2)
                yield made
    made.down()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with browsing() as opened:
        yield opened


def confirm(page: Page) -> None:
    """Reads the dialog, and says yes."""
    expect(page.locator("#dialog")).to_be_visible()
    page.locator("#dialog-yes").click()


def test_a_message_is_enqueued_and_watched_to_its_end(shop: Shop, browser: Browser) -> None:
    """From the form on the overview to its timeline: it runs with a progress bar, then it has completed."""
    with visiting(browser, shop.url) as visit:
        page = visit.go("/")
        page.get_by_role("button", name="Enqueue…").click()
        page.get_by_label("Actor").fill("deliver")
        page.get_by_label("Arguments, a JSON list").fill('["gate')
        page.get_by_role("button", name="Enqueue", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("cannot be read as JSON")
        page.get_by_label("Arguments, a JSON list").fill('["gate-1"]')
        page.get_by_role("button", name="Enqueue", exact=True).click()
        page.locator("#toast a").click()
        expect(page.locator(".facts-panel .state")).to_have_text("running")
        bar = page.locator(".facts-panel progress")
        expect(bar).to_be_visible()
        expect(bar).to_have_attribute("value", "100.0")
        expect(page.locator("rect.run.running")).to_be_visible()
        shop.make("gate-1")
        expect(page.locator(".facts-panel .state")).to_have_text("completed")
        expect(page.locator('svg[data-attempt="1"] rect.run.completed')).to_be_visible()
        expect(page.locator(".line.span", has_text="pick")).to_be_visible()
        expect(page.locator("#attempt-1 summary .said").first).to_have_text("80 boxes")
        expect(page.locator(".facts")).to_contain_text(['"gate-1"'])


def test_a_unique_key_that_is_taken_is_told(shop: Shop, browser: Browser) -> None:
    """The second message is not enqueued, and the page names the first."""
    with visiting(browser, shop.url) as visit:
        page = visit.go("/")
        ids = []
        for said in ("Enqueued:", "Nothing was enqueued."):
            page.get_by_role("button", name="Enqueue…").click()
            page.get_by_label("Actor").fill("post")
            page.get_by_label("Arguments, a JSON list").fill("[1]")
            page.get_by_label("Delay", exact=True).fill("1h")
            page.get_by_label("Unique key").fill("parcel 1")
            page.get_by_role("button", name="Enqueue", exact=True).click()
            expect(page.locator("#toast")).to_contain_text(said)
            ids.append(page.locator("#toast a").text_content())
        assert ids[0] == ids[1]


def test_what_runs_is_shown_with_progress_and_can_be_cancelled(shop: Shop, browser: Browser) -> None:
    """The page of what runs refreshes itself; the one that is cancelled there ends cancelled, the other goes on."""
    with visiting(browser, shop.url) as visit:
        page = visit.go("/running")
        stays = shop.send("deliver", "gate-2")
        goes = shop.send("count", "B7")
        expect(page.locator("tr", has_text="gate=gate-2").locator("progress")).to_be_visible()
        held = page.locator("tr", has_text="shelf=B7")
        expect(held).to_contain_text("count")
        held.get_by_role("button", name="Cancel").click()
        expect(page.locator("#dialog-title")).to_have_text("Cancel 1 message?")
        expect(page.locator("#dialog")).to_contain_text(goes)
        confirm(page)
        expect(page.locator("#toast")).to_contain_text("1 message cancelled")
        expect(held).to_have_count(0)
        shop.becomes(goes, "cancelled")
        visit.go(f"/messages/{goes}")
        expect(page.locator(".facts-panel .state")).to_have_text("cancelled")
        expect(page.locator("main")).to_contain_text("by web@127.0.0.1")
        assert shop.state(stays) == "running"
        shop.make("gate-2")
        shop.becomes(stays, "completed")
        visit.go("/audit")
        expect(page.locator("tbody tr", has_text="cancel").first).to_contain_text("web@127.0.0.1")


def test_a_dead_letter_shows_its_traceback_and_is_replayed(shop: Shop, browser: Browser) -> None:
    """Found in the group of its error; its timeline has both attempts, and after the replay a third that completes."""
    sent = shop.send("bill", "A-17")
    shop.becomes(sent, "dead")
    with visiting(browser, shop.url) as visit:
        page = visit.go("/dead")
        group = page.locator(".group", has_text="ValueError")
        expect(group).to_contain_text("no address for A-17")
        group.locator("a.message").click()
        expect(page.locator("svg[data-attempt] rect.run.failed")).to_have_count(2)
        expect(page.locator("#attempt-2 .traceback")).to_contain_text('raise ValueError(f"no address for {order}")')
        expect(page.locator("#attempt-2 .traceback")).not_to_contain_text("/worker/attempts/")
        page.locator("#attempt-2").get_by_text("With the frames of the worker").click()
        expect(page.locator("#attempt-2 .traceback-whole")).to_contain_text("/worker/attempts/")
        shop.make("mended-A-17")
        page.get_by_role("button", name="Replay").click()
        confirm(page)
        expect(page.locator(".facts-panel .state")).to_have_text("completed")
        expect(page.locator('svg[data-attempt="3"] rect.run.completed')).to_be_visible()
        expect(page.locator("main")).to_contain_text("Asked for by people")
    assert [event.state.value for event in shop.events(sent)][-2:] == ["started", "completed"]


def test_an_attempt_that_waits_is_shown_as_snoozed_and_as_no_failure(shop: Shop, browser: Browser) -> None:
    """On its timeline with the reason, in the chart and the table of actors, by the filter; not among the failures."""
    sent = shop.send("collect", "Mole Post")
    shop.becomes(sent, "delayed")
    with visiting(browser, shop.url) as visit:
        page = visit.go(f"/messages/{sent}")
        expect(page.locator('svg[data-attempt="1"] rect.run.snoozed')).to_be_visible()
        expect(page.locator("#attempt-1")).to_contain_text("Mole Post asks for patience")
        expect(page.locator("#attempt-1 .error-text")).to_have_count(0)
        visit.go("/messages?state=snoozed")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody tr")).to_contain_text("Mole Post asks for patience")
        visit.go("/")
        legend = page.locator("#chart-attempts .chart-legend")
        expect(legend).to_contain_text("cancelled")
        expect(page.locator("#chart-attempts rect.bar.snoozed")).to_have_count(1)
        assert legend.evaluate("one => one.scrollHeight <= one.clientHeight"), "a part of the legend is hidden"
        errors = page.locator("tr[data-key='actor-collect'] [data-label=errors]")
        expect(errors).to_have_text("0 %")
        expect(page.locator(".failures")).not_to_contain_text("collect")


def test_a_queue_is_paused_and_resumed(shop: Shop, browser: Browser) -> None:
    """What is enqueued meanwhile waits, the oldest for a growing time, and is worked off afterwards."""
    shop.becomes(shop.send("post", 0, queue="parcels"), "completed")
    with visiting(browser, shop.url) as visit:
        page = visit.go("/queues")
        parcels = page.locator("tr", has_text="parcels")
        parcels.get_by_role("button", name="Pause").click()
        expect(parcels).to_contain_text("paused by web@127.0.0.1")
        assert {one.name: bool(one.pause) for one in ask(shop.client, queues())}["parcels"]
        waits = shop.send("post", 1, queue="parcels")
        expect(parcels.locator("td").nth(1)).to_have_text("1")
        assert shop.state(waits) == "queued"
        parcels.get_by_role("button", name="Resume").click()
        shop.becomes(waits, "completed")
        expect(parcels).to_contain_text("open")
        expect(parcels.locator("td").nth(1)).to_have_text("0")


def test_a_filtered_view_is_shared_by_its_url(shop: Shop, browser: Browser) -> None:
    """Another visitor who opens the URL sees the same messages, and the same filters in the form."""
    dead = shop.send("bill", "A-18")
    shop.becomes(dead, "dead")
    done = shop.send("post", 18, queue="parcels")
    shop.becomes(done, "completed")
    with visiting(browser, shop.url) as visit:
        page = visit.go("/messages")
        page.locator("label.pick.dead").click()
        page.wait_for_url("**/messages?state=dead")
        page.get_by_label("Subject").fill("order=A-18")
        page.get_by_label("Error").fill("ValueError")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#total")).to_have_text("1 matches")
        shared = page.url
    assert shared.endswith("/messages?state=dead&subject=order%3DA-18&error=ValueError")
    with visiting(browser, shop.url) as visit:
        visit.page.goto(shared)
        expect(visit.page.locator("tbody tr")).to_have_count(1)
        expect(visit.page.locator("tbody tr")).to_contain_text("order=A-18")
        expect(visit.page.get_by_label("Error")).to_have_value("ValueError")
        expect(visit.page.locator('input[value="dead"]')).to_be_checked()


def test_a_filter_that_cannot_be_read_is_told_in_a_line(shop: Shop, browser: Browser) -> None:
    """It says what may be written instead, and keeps what was written."""
    with visiting(browser, shop.url) as visit:
        page = visit.go("/messages?since=yesterday")
        expect(page.get_by_role("alert")).to_contain_text("since yesterday: write how long ago, such as 2h")
        expect(page.get_by_label("Since")).to_have_value("yesterday")
        visit.expects("422")


def test_hostile_markup_in_a_message_is_shown_as_text(shop: Shop, browser: Browser) -> None:
    """In its subject, its arguments, its error and its traceback, on every page that shows it, and in the live tail."""
    with visiting(browser, shop.url) as visit:
        with visit.page.expect_response(lambda answer: "/events/live" in answer.url):  # it follows from then on
            tail = visit.go("/live?actor=greet")
        sent = shop.send("greet", HOSTILE)
        shop.becomes(sent, "dead")
        expect(tail.locator("#tail-rows tr", has_text="failed")).to_contain_text(HOSTILE)
        page = visit.new_page()
        for path in ("/", "/dead", f"/messages?subject={quote(f'name={HOSTILE}')}", f"/messages/{sent}", "/messages"):
            page.goto(visit.url + path)
            expect(page.locator("main")).to_contain_text('<img src=x onerror="document')
        page.goto(f"{visit.url}/messages/{sent}")
        expect(page.locator("p.subject")).to_have_text(f"name={HOSTILE}")
        expect(page.locator("p.error-text")).to_contain_text(HOSTILE)
        expect(page.locator(".traceback")).to_contain_text(HOSTILE)
        for one in (page, tail):
            assert one.locator("main img, main script").count() == 0
            assert "owned" not in one.title()


def test_everything_that_matches_is_counted_and_then_done(shop: Shop, browser: Browser) -> None:
    """The dialog says how many there are before anything is done; selected ones are done alone."""
    sent = [shop.send("bill", "bulk") for _ in range(3)]
    for one in sent:
        shop.becomes(one, "dead")
    with visiting(browser, shop.url) as visit:
        page = visit.go("/messages?state=dead&subject=order%3Dbulk")
        page.locator("#bulk").get_by_role("button", name="Purge").click()
        expect(page.locator("#toast")).to_contain_text("No message is selected")
        page.locator(f'input[value="{sent[0]}"]').check()
        page.locator("#bulk").get_by_role("button", name="Purge").click()
        expect(page.locator("#dialog-title")).to_have_text("Purge 1 message?")
        confirm(page)
        expect(page.locator("#total")).to_have_text("2 match")
        page.locator("#bulk-of").select_option("all")
        page.locator("#bulk").get_by_role("button", name="Purge").click()
        expect(page.locator("#dialog-title")).to_have_text("Purge 2 messages?")
        page.locator("#dialog-no").click()
        assert [shop.state(one) for one in sent] == ["unknown", "dead", "dead"]
        page.locator("#bulk").get_by_role("button", name="Purge").click()
        confirm(page)
        expect(page.locator("tbody")).to_contain_text("No message matches.")
        assert {shop.state(one) for one in sent} == {"unknown"}


def test_what_the_dialog_counted_is_what_is_done(shop: Shop, browser: Browser) -> None:
    """Another that matches meanwhile stays; the button that changes nothing has the focus, and gives it back."""
    counted = [shop.send("bill", "counted") for _ in range(2)]
    for one in counted:
        shop.becomes(one, "dead")
    with visiting(browser, shop.url) as visit:
        page = visit.go("/messages?state=dead&subject=order%3Dcounted")
        page.locator("#bulk-of").select_option("all")
        purge = page.locator("#bulk").get_by_role("button", name="Purge")
        purge.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#dialog-title")).to_have_text("Purge 2 messages?")
        expect(page.locator("#dialog-no")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#dialog")).to_be_hidden()
        expect(purge).to_be_focused()
        assert {shop.state(one) for one in counted} == {"dead"}
        page.keyboard.press("Enter")
        expect(page.locator("#dialog-title")).to_have_text("Purge 2 messages?")
        late = shop.send("bill", "counted")
        shop.becomes(late, "dead")
        confirm(page)
        expect(page.locator("#toast")).to_have_text("2 messages purged.")
        assert [shop.state(one) for one in (*counted, late)] == ["unknown", "unknown", "dead"]


def test_a_list_that_waits_for_the_pointer_says_so(shop: Shop, browser: Browser) -> None:
    """It is not live while it does not move, and is again when the pointer has gone."""
    shop.becomes(shop.send("post", 77), "completed")
    with visiting(browser, shop.url) as visit:
        page = visit.go("/messages")
        status = page.locator("#status")
        expect(status).to_have_text("live")
        page.locator("tbody tr").first.hover()
        expect(status).to_contain_text("the pointer is on the list")
        page.locator("h1").hover()
        expect(status).to_have_text("live")
        page.locator('input[name="pick"]').first.check()
        page.locator("h1").hover()
        expect(status).to_contain_text("some are selected")


def test_the_focus_stays_where_it_was_when_rows_change_their_places(shop: Shop, browser: Browser) -> None:
    """A refresh moves what is listed, and not the visitor."""
    shop.becomes(shop.send("post", 78), "completed")
    shop.becomes(shop.send("greet", "you"), "dead")
    with visiting(browser, shop.url) as visit:
        page = visit.go("/queues")
        page.evaluate(
            "const rows = document.querySelector('tbody'), row = rows.firstElementChild;"
            "rows.append(row); row.querySelector('button').focus(); window.row = row"
        )
        expect(page.locator("tbody tr").first.locator("button")).to_be_focused()
        assert page.evaluate("window.row === document.querySelector('tbody').firstElementChild")


def test_every_actor_that_can_be_enqueued_for_is_offered(shop: Shop, browser: Browser) -> None:
    """Also those that have never run."""
    with visiting(browser, shop.url) as visit:
        page = visit.go("/")
        offered = page.evaluate("[...document.querySelectorAll('#actors option')].map((one) => one.value)")
        assert offered == sorted(one.actor_name for one in vars(actors).values() if isinstance(one, dramatiq.Actor))


def test_a_time_in_a_filter_is_local_as_those_on_the_pages(shop: Shop, browser: Browser) -> None:
    """The URL, which others may open elsewhere, says it in UTC."""
    with visiting(browser, shop.url, zone="Asia/Tokyo") as visit:
        page = visit.go("/messages")
        page.locator('input[name="since"]').fill("2026-11-21 18:00")
        page.locator("form#filters button[type=submit]").click()
        expect(page).to_have_url(re.compile("since=2026-11-21T09%3A00%3A00.000Z"))
        expect(page.locator('input[name="since"]')).to_have_value("2026-11-21T18:00")


def test_the_overview_stays_fresh_and_leaves_the_visitor_alone(shop: Shop, browser: Browser) -> None:
    """Numbers and charts change by themselves, while what has the focus or was opened stays so."""
    with visiting(browser, shop.url) as visit:
        page = visit.go("/")
        page.evaluate("document.querySelector('.more').focus(); window.same = true")
        sent = shop.send("deliver", "gate-3")
        running = page.locator(".tile", has_text="Running").locator("b")
        expect(running).to_have_text("1")
        expect(page.locator("#chart-depth .chart-legend")).to_contain_text("running 1")
        assert page.evaluate("window.same && document.activeElement.className") == "more"
        shop.make("gate-3")
        shop.becomes(sent, "completed")
        expect(running).to_have_text("0")
        expect(page.locator("#chart-attempts rect.bar.completed").first).to_be_visible()
        page.locator("#status").click()
        expect(page.locator("#status")).to_have_text("paused")


@pytest.mark.clock
def test_two_thousand_events_a_second_do_not_stop_the_tail(shop: Shop, browser: Browser) -> None:
    """At most 200 rows, drawn a few times a second; the rate is told, and the page still answers at once."""
    with visiting(browser, shop.url) as visit:
        page = visit.page
        with page.expect_response(lambda answer: "/events/live" in answer.url):  # it follows from then on
            visit.go("/live?queue=parcels")
        page.evaluate(LONGEST_FRAME)
        shop.run(sys.executable, "-c", SEND_MANY, "6000")
        wait_until(lambda: page.evaluate("window.highestRate") > 500)
        expect(page.locator("#tail-note")).to_contain_text("not shown")
        wait_until(lambda: not list(all_messages(shop.client, PARCELS_ON_THEIR_WAY)))
        assert page.locator("#tail-rows tr").count() == 200
        assert page.evaluate("window.longestFrame") < 1_000
        page.locator("#tail-pause").click()
        expect(page.locator("#tail-note")).to_contain_text("paused")


PARCELS_ON_THEIR_WAY = MessageFilter(states=("queued", "running"), queue="parcels")

LONGEST_FRAME = """() => {
  let last = performance.now();
  window.longestFrame = window.highestRate = 0;
  const look = (now) => {
    window.longestFrame = Math.max(window.longestFrame, now - last);
    const rate = Number(document.getElementById("tail-rate").innerText.replace(",", "")) || 0;
    window.highestRate = Math.max(window.highestRate, rate);
    last = now;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""


def test_who_may_only_look_sees_no_way_to_act(shop: Shop, browser: Browser) -> None:
    """After the login there is no button that changes anything; arguments and tracebacks are hidden."""
    sent = shop.send("bill", "A-19")
    shop.becomes(sent, "dead")
    with visiting(browser, shop.guarded) as visit:
        page = visit.go(f"/messages/{sent}")
        expect(page).to_have_title("Log in · worker")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("This is not the token.")
        visit.go(f"/messages/{sent}")
        page.get_by_label("Token").fill(READ_TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator(".facts-panel .state")).to_have_text("dead")
        expect(page.locator("main")).to_contain_text("WORKER_WEB_SHOW_ARGUMENTS=true")
        assert page.locator(".traceback").count() == 0
        assert '"A-19"' not in page.content()
        for path in [*PAGES, f"/messages/{sent}"]:
            visit.go(path)
            names = page.locator("main button, main input[type=checkbox][name=pick], .tools button").all_inner_texts()
            assert set(names) <= {"live", "", "Show", "Follow", "Pause"}
            assert page.locator("[data-action], [data-turn], [data-sync], [data-bulk]").count() == 0
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_title("Log in · worker")
        assert visit.cookies() == []


def test_who_has_logged_in_to_act_acts(shop: Shop, browser: Browser) -> None:
    """The session's token against forgery goes with the action; the audit log tells by which token."""
    sent = shop.send("bill", "A-20")
    shop.becomes(sent, "dead")
    with visiting(browser, shop.guarded) as visit:
        page = visit.go(f"/messages/{sent}")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Purge").click()
        confirm(page)
        expect(page.locator("#toast")).to_contain_text("1 message purged")
        shop.becomes(sent, "unknown")
        visit.go("/audit")
        expect(page.locator("tbody tr", has_text="purge").first).to_contain_text("full token@127.0.0.1")
        visit.expects("404")


def test_what_is_pressed_before_the_page_listens_is_not_lost(shop: Shop, browser: Browser) -> None:
    """Buttons are disabled until the script that serves them is there."""
    sent = shop.send("bill", "A-24")
    shop.becomes(sent, "dead")
    with visiting(browser, shop.url) as visit:
        held: list[Route] = []
        visit.page.route("**/static/app.js", lambda route: held.append(route))
        page = visit.page
        page.goto(f"{visit.url}/messages/{sent}", wait_until="commit")
        for name in ("Purge", "Replay", "Dark or light"):
            expect(page.get_by_role("button", name=name)).to_be_disabled()
        held[0].continue_()
        page.get_by_role("button", name="Purge").click()
        confirm(page)
        shop.becomes(sent, "unknown")
        visit.expects("404")


def test_it_works_below_a_path_of_another_application(shop: Shop, browser: Browser) -> None:
    """Links, styles, scripts, fragments, actions and the tail, although the path has a space."""
    sent = shop.send("bill", "A-21")
    shop.becomes(sent, "dead")
    with visiting(browser, shop.mounted) as visit:
        page = visit.go("/")
        for name in ("Messages", "Running", "Delayed", "Dead letters", "Queues", "Workers", "Repositories", "Audit"):
            page.locator("#nav").get_by_role("link", name=name).click()
            expect(page.locator("h1")).to_have_text(name)
            assert page.evaluate("getComputedStyle(document.body).display") == "grid"
        visit.go(f"/messages/{sent}")
        shop.make("mended-A-21")
        page.get_by_role("button", name="Replay").click()
        confirm(page)
        expect(page.locator(".facts-panel .state")).to_have_text("completed")
        with page.expect_response(lambda answer: "/events/live" in answer.url):  # it follows from then on
            visit.go("/live?actor=post")
        shop.send("post", 21, queue="parcels")
        expect(page.locator("#tail-rows tr", has_text="completed")).to_contain_text("parcel=21")
        page.locator("#tail-rows tr a").first.click()
        expect(page.locator(".facts-panel .state")).to_have_text("completed")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_page_is_wider_than_the_screen(shop: Shop, browser: Browser, size: tuple[int, int]) -> None:
    """In either width nothing but a table of its own scrolls sideways; what was chosen, dark or light, is kept."""
    sent = shop.send("bill", "a-very-long-order-number-" + "9" * 200)
    shop.becomes(sent, "dead")
    with visiting(browser, shop.url, size=size) as visit:
        page = visit.go("/")
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.locator("#theme").click()
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark != light
        for path in [*PAGES, f"/messages/{sent}"]:
            visit.go(path)
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_a_message_nobody_knows_is_told_in_a_page(shop: Shop, browser: Browser) -> None:
    """With a way back, and not as JSON."""
    with visiting(browser, shop.url) as visit:
        page = visit.go("/messages/none")
        expect(page.locator("main")).to_contain_text("No such message is kept")
        page.get_by_role("link", name="To the overview").click()
        expect(page.locator("h1")).to_have_text("Overview")
        visit.expects("404")


def test_the_script_says_when_the_server_does_not_answer(shop: Shop, browser: Browser) -> None:
    """And is live again by itself as soon as it does."""
    with visiting(browser, shop.url) as visit:
        page = visit.go("/queues")
        visit.page.context.set_offline(True)
        expect(page.locator("#status")).to_have_text(re.compile(r"^no answer since \d\d:\d\d:\d\d$"))
        visit.page.context.set_offline(False)
        expect(page.locator("#status")).to_have_text("live")
        visit.expects("ERR_INTERNET_DISCONNECTED")


def test_the_templates_bear_no_style_or_script_of_their_own() -> None:
    """Nor do they mark anything as safe, or name another server."""
    for file in (ROOT / "worker" / "web" / "templates").glob("*.html"):
        found = re.findall(r"\sstyle=|<style|<script>|\son[a-z]+=|\|\s*safe\b|https?://", file.read_text())
        assert not found, f"{file}: {found}"
