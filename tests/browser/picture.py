"""Make the picture of the home page in the README: ``python -m tests.browser.picture``, as root."""

from __future__ import annotations

from playwright.sync_api import expect, sync_playwright

from tests.conftest import CHROMIUM
from tests.support.portal import PASSWORD, REPOSITORY, People, Portal

PICTURE = REPOSITORY / "docs" / "pictures" / "home.png"
LAB = {
    "lab": {
        "name": "Our lab",
        "contact": "help@lab.example",
        "message": "The microscope in room 3 is back.",
    },
    "profiles": [{"name": "stub", "title": "Standard", "environment": "stub", "memory": "4G"}],
    "apps": [
        {
            "name": "eln",
            "title": "Lab notebook",
            "description": "Protocols, samples and results.",
            "url": "https://eln.lab.example",
        }
    ],
}


def main() -> None:
    """Start a portal with one person's server and take the picture."""
    people = People()
    people.prefix = "ada"
    try:
        name = people.add("lovelace")
        with Portal(LAB) as portal, sync_playwright() as playwright:
            portal.spawn(name)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            context = browser.new_context(
                viewport={"width": 1120, "height": 600}, device_scale_factor=1.5, locale="en-GB"
            )
            page = context.new_page()
            page.goto(f"{portal.url}/hub/login")
            page.get_by_label("User name").fill(name)
            page.get_by_label("Password").fill(PASSWORD)
            page.keyboard.press("Enter")
            expect(page.get_by_text("Running", exact=True)).to_be_visible()
            page.screenshot(path=PICTURE, full_page=True)
            browser.close()
    finally:
        people.remove_all()


if __name__ == "__main__":
    main()
