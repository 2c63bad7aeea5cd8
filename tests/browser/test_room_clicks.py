"""A teacher and two students in one room: what she opens and reveals reaches them, and a reload loses nobody."""

from __future__ import annotations

import re

from browser import idle


def tab(chromium, address: str, width: int = 1000):
    page = chromium.new_context(viewport={"width": width, "height": 900}).new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("dialog", lambda dialog: page.errors.append(f"a dialog: {dialog.message}"))
    return page


def joined(chromium, address: str, code: str, name: str):
    page = tab(chromium, address, 390)
    page.goto(f"{address}/learn?room={code.lower()}")
    page.get_by_role("textbox", name="Nickname").fill(name)
    page.get_by_role("button", name="Join", exact=True).click()
    page.get_by_role("button", name="Begin it").click(timeout=60_000)
    page.get_by_text("Leave the class").wait_for(timeout=60_000)
    return page


def test_a_class_goes_through_a_step_together(chromium, address):
    teacher = tab(chromium, address)
    teacher.goto(f"{address}/room")
    teacher.get_by_role("button", name="Open the room").click(timeout=60_000)
    teacher.get_by_text("QR code and link").wait_for(timeout=60_000)
    teacher.locator(".room-qr img:visible").wait_for(timeout=60_000)
    assert teacher.locator(".room-qr img:visible").evaluate("image => image.naturalWidth") > 50
    code = re.search(r"room=([A-Z]{4})&key=", teacher.url)[1]

    ann = joined(chromium, address, code, "<img src=x onerror=alert(1)>"[:24])
    bob = joined(chromium, address, code, "")
    option = ann.get_by_role("radiogroup").first.get_by_role("radio").nth(1)
    option.check(force=True)
    teacher.get_by_text("1 of 2 have answered").first.wait_for(timeout=60_000)
    assert teacher.get_by_text("✓").count() == 0

    ann.reload()  # she is the same member, and her answer is there
    ann.get_by_text("Leave the class").wait_for(timeout=60_000)
    idle(ann)
    assert ann.get_by_role("radiogroup").first.get_by_role("radio").nth(1).is_checked()
    assert ann.get_by_role("button", name="Go on to").count() == 0, "nothing was opened yet"

    teacher.get_by_role("button", name="Reveal the answers").click()
    bob.get_by_text("What the class answered").first.wait_for(timeout=60_000)
    assert bob.locator(".bars .label.right").count() >= 1
    teacher.get_by_role("button", name="Open step 1 for all").click()
    for student in (ann, bob):
        student.get_by_role("button", name="Go on to").click(timeout=60_000)
        student.locator(".st-key-lesson_panel").wait_for(timeout=60_000)
        assert f"room={code}" in student.url and "me=" in student.url
    teacher.get_by_text("2 in the room").wait_for(timeout=60_000)

    teacher.get_by_text("Members: where they are").click()
    idle(teacher)
    teacher.get_by_role("combobox", name="Remove a member").click()
    teacher.get_by_role("combobox", name="Remove a member").fill("Guest 2")
    teacher.get_by_role("option", name="Guest 2").click()
    teacher.get_by_role("button", name="Remove", exact=True).click()
    bob.get_by_text("You are no longer in this room").wait_for(timeout=60_000)
    teacher.get_by_text("1 in the room").wait_for(timeout=60_000)

    key_page = tab(chromium, address)  # the key in a second browser
    key_page.goto(teacher.url)
    key_page.get_by_role("button", name="Open step 2 for all").click(timeout=60_000)
    teacher.get_by_role("button", name="Open step 3 for all").wait_for(timeout=60_000)
    with teacher.expect_download(timeout=60_000) as found:
        teacher.get_by_role("button", name="Answers (CSV)").click()
    assert "before.1" in found.value.path().read_text()
    teacher.get_by_role("button", name="Close the room").click()
    teacher.get_by_role("button", name="Close and delete").click()
    ann.get_by_text("The room is closed").wait_for(timeout=60_000)
    assert [page.errors for page in (teacher, ann, bob, key_page)] == [[], [], [], []]
    for page in (teacher, ann, bob, key_page):
        page.context.close()
