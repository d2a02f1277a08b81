"""The spawn and pending pages on a real SLURM, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from labkit.testing import SlurmCluster
from tests.browser.test_pages import FAULTS, LOOKS, press_until, visible_focus
from tests.conftest import needs_chromium, needs_root
from tests.hub.slurm.test_page import POWER_SAVING
from tests.support.portal import PASSWORD, People
from tests.support.slurm_portal import SlurmPortal, needs_slurm, wait_for

pytestmark = [needs_root, needs_chromium, needs_slurm]

CLOUD = """\
Scheduling:
  SlurmQueues:
    - Name: cloud
      CapacityType: SPOT
      ComputeResources: [{Name: nodes, InstanceType: c5.xlarge}]
    - Name: gpu
      ComputeResources: [{Name: nodes, InstanceType: g4dn.xlarge}]
"""
PROFILES = [
    {
        "name": "stub",
        "title": "Standard",
        "description": "For everyday work.",
        "environment": "stub",
        "memory": "512M",
        "default": True,
    },
    {"name": "whole", "title": "Whole node", "environment": "stub", "cpu": 4, "memory": "512M"},
    {
        "name": "card",
        "title": "Graphics card",
        "environment": "stub",
        "gpus": 1,
        "memory": "512M",
        "partitions": ["gpu"],
    },
    {"name": "dies", "title": "Dies", "environment": "stub-dies", "memory": "512M"},
    {"name": "huge", "title": "Huge", "environment": "stub", "cpu": 64, "memory": "512M"},
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with SlurmCluster(
        cpus=4,
        memory=8000,
        features={"node3": "g4dn.xlarge", "node4": "dynamic,c5.xlarge"},
        gres={"node3": "gpu:t4:1"},
        partitions={
            "main": {"Nodes": "node[1-2]", "Default": "YES", "MaxTime": "1-00:00:00"},
            "gpu": {"Nodes": "node3"},
            "cloud": {"Nodes": "node4"},
            "shut": {"Nodes": "node2", "State": "DOWN"},
        },
        config=POWER_SAVING,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def portal(
    cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlurmPortal]:
    queues = tmp_path_factory.mktemp("cloud") / "cluster-config.yaml"
    queues.write_text(CLOUD)
    slurm = {
        "partitions": ["main", "gpu", "cloud", "shut"],
        "cluster_config": str(queues),
        "queue_timeout": "3m",
    }
    with SlurmPortal(cluster, slurm, lab={"profiles": PROFILES}) as running:
        yield running


@pytest.fixture(scope="module")
def page(chromium: Browser, portal: SlurmPortal, people: People) -> Iterator[Page]:
    errors: list[str] = []
    page = chromium.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{portal.url}/hub/login")
    owner = people.add("ada")
    page.owner = owner  # type: ignore[attr-defined]
    page.get_by_label("User name").fill(owner)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/home")
    yield page
    assert errors == []


@pytest.fixture(autouse=True)
def clean(portal: SlurmPortal, cluster: SlurmCluster) -> Iterator[None]:
    yield
    portal.stop_servers()
    cluster.cancel_all()


def fill(cluster: SlurmCluster, partition: str, jobs: int) -> list[str]:
    """Take whole nodes, for ten minutes by the clock of SLURM."""
    words = ["sbatch", "--parsable", f"--partition={partition}", "--exclusive", "--time=10"]
    return [
        cluster.command(*words, "--output=/dev/null", "--wrap", "sleep 600") for _ in range(jobs)
    ]


def choose(page: Page, portal: SlurmPortal, profile: str, partition: str) -> None:
    page.goto(f"{portal.url}/hub/spawn")
    page.locator(f"input[name=profile][value={profile}]").check()
    page.locator(f"input[name=partition][value={partition}]").check()
    page.get_by_role("button", name=re.compile("Start|Try again")).click()


def test_the_page_offers_what_can_start_and_explains_the_rest(
    page: Page, portal: SlurmPortal
) -> None:
    page.goto(f"{portal.url}/hub/spawn")
    expect(page.get_by_text("No node is large enough").first).to_be_visible()
    expect(page.locator("input[value=huge]")).to_have_count(0)
    places = page.get_by_role("group", name="Choose where it runs.")
    main, gpu, shut = (
        places.locator("label", has=page.locator(f"input[value={name}]"))
        for name in ("main", "gpu", "shut")
    )
    expect(main).to_contain_text("There is room: it starts at once.")
    expect(main).to_contain_text("Free now: 8 of 8 cores, 2 of 2 nodes")
    expect(gpu).to_contain_text("g4dn.xlarge: a node for 0.53 USD per hour")
    expect(shut).to_contain_text("It starts no jobs at the moment.")
    expect(shut.locator("input")).to_be_disabled()
    expect(page.get_by_text("Prices are those of AWS on 20 July 2026")).to_be_visible()
    expect(main.locator("input")).to_be_checked()
    page.get_by_label("Graphics card").check()
    expect(main.locator("input")).to_be_disabled()
    expect(main).to_contain_text("It is not for the profile Graphics card.")
    expect(gpu.locator("input")).to_be_checked()
    page.get_by_label("Standard").check()
    expect(main.locator("input")).to_be_enabled()
    expect(gpu.locator("input")).to_be_checked()  # what was chosen is kept where it can be


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_can_be_read_in_every_look(
    chromium: Browser, page: Page, portal: SlurmPortal, artifacts: Path, look: str
) -> None:
    state = page.context.storage_state()
    context = chromium.new_context(storage_state=state, **LOOKS[look])  # type: ignore[arg-type]
    mine = context.new_page()
    mine.goto(f"{portal.url}/hub/spawn")
    mine.screenshot(path=artifacts / f"slurm-spawn-{look}.png", full_page=True)
    assert mine.evaluate(FAULTS, True) == []
    context.close()


def test_a_full_partition_is_said_to_be_full_and_the_wait_is_shown_until_it_ends(
    page: Page, portal: SlurmPortal, cluster: SlurmCluster, artifacts: Path
) -> None:
    jobs = fill(cluster, "main", 3)
    wait_for(lambda: sum(" RUNNING " in row for row in cluster.queue()) == 2, what="two jobs")

    def full() -> bool:
        page.goto(f"{portal.url}/hub/spawn")
        return page.get_by_text("Full at the moment: it would wait in the queue.").count() == 1

    wait_for(full, what="a page that says so")
    choose(page, portal, "whole", "main")
    page.wait_for_url("**/hub/spawn-pending/**")
    wait = page.get_by_role("region", name="It waits in the queue")
    expect(wait).to_be_visible()
    expect(wait).to_contain_text("2 of 2 that wait")
    expect(wait).to_contain_text(
        re.compile("Other jobs are before it|has not looked at it|waits until enough")
    )
    expect(wait.locator("time")).to_have_text(re.compile(r"\(in \d+ min\)"))
    page.screenshot(path=artifacts / "slurm-waiting.png", full_page=True)
    assert page.evaluate(FAULTS, True) == []
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=artifacts / "slurm-waiting-dark.png", full_page=True)
    assert page.evaluate(FAULTS, True) == []
    page.emulate_media(color_scheme="light")
    page.reload()  # the hub tells it again
    expect(wait).to_be_visible()
    cluster.command("scancel", *jobs)
    page.wait_for_url(portal.user_url(page.owner))  # type: ignore[attr-defined]


def test_a_start_by_keyboard_alone(page: Page, portal: SlurmPortal) -> None:
    page.goto(f"{portal.url}/hub/spawn")
    press_until(page, "Tab", "input[name=profile]:checked")
    press_until(page, "ArrowDown", "input[value=card]")
    press_until(page, "Tab", "input[name=partition]:checked")
    assert page.evaluate("document.activeElement.value") == "gpu"
    assert visible_focus(page)
    press_until(page, "Tab", "button[type=submit]")
    page.keyboard.press("Enter")
    page.wait_for_url(portal.user_url(page.owner))  # type: ignore[attr-defined]
    model = portal.server(page.owner)  # type: ignore[attr-defined]
    assert model["user_options"] == {"profile": "card", "partition": "gpu"}


def test_a_server_that_dies_shows_why_with_its_log(
    page: Page, portal: SlurmPortal, artifacts: Path
) -> None:
    choose(page, portal, "dies", "cloud")
    expect(page.get_by_role("alert")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("the disk is on fire").first).to_be_visible()
    page.screenshot(path=artifacts / "slurm-failed.png", full_page=True)
    retry = page.locator("form", has=page.get_by_role("button", name="Retry"))
    expect(retry.locator("input[name=partition]")).to_have_value("cloud")


def test_a_silent_cluster_is_said_on_the_page(
    page: Page, portal: SlurmPortal, cluster: SlurmCluster, artifacts: Path
) -> None:
    cluster.stop_munge()
    try:

        def silent() -> bool:
            page.goto(f"{portal.url}/hub/spawn")
            return page.get_by_text("The cluster does not answer at the moment").count() == 1

        wait_for(silent, what="a page that says so")
        expect(page.locator("main").get_by_role("status")).to_contain_text(
            "what is said of it below is of"
        )
        expect(page.locator("input[value=main]")).to_be_enabled()
        page.screenshot(path=artifacts / "slurm-silent.png", full_page=True)
    finally:
        cluster.start_munge()


# Last: its node stays away.
def test_a_node_that_is_switched_on_for_it_is_named_and_the_wait_can_be_cancelled(
    page: Page, portal: SlurmPortal, cluster: SlurmCluster, artifacts: Path
) -> None:
    cluster.command("scontrol", "update", "nodename=node4", "state=power_down")
    cluster.kill_node("node4")

    def asleep() -> bool:
        page.goto(f"{portal.url}/hub/spawn")
        return page.get_by_text("1 node can be started").count() == 1

    wait_for(asleep, timeout=60, what="a page that says so")
    cloud = page.locator("#places label", has=page.locator("input[value=cloud]"))
    expect(cloud).to_contain_text("A node has to start first: some minutes.")
    expect(cloud).to_contain_text("c5.xlarge: spot, a node for less than 0.17 USD per hour")
    page.screenshot(path=artifacts / "slurm-spawn-cloud.png", full_page=True)
    choose(page, portal, "stub", "cloud")
    page.wait_for_url("**/hub/spawn-pending/**")
    wait = page.get_by_role("region", name="The node node4 is starting (AWS, c5.xlarge)")
    expect(wait).to_be_visible(timeout=40_000)
    page.screenshot(path=artifacts / "slurm-node-starts.png", full_page=True)
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_url("**/hub/home")
    wait_for(lambda: not portal.jobs(), what="the end of its job")
