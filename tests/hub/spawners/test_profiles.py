from __future__ import annotations

import pytest

from hub.labfile.schema import Profile, Settings
from hub.spawners import profiles

SETTINGS = Settings(
    profiles=(
        Profile(name="small", title="Small", cpu=1, memory=1 << 30),
        Profile(name="standard", title="Standard", cpu=2.5, memory=4 << 30, default=True),
        Profile(name="gpu", title="GPU", groups=("imaging", "staff")),
    ),
    groups={"imaging": ("ada",), "staff": ()},
)
OPEN = profiles.usable(SETTINGS, [])


def names(offered: tuple[Profile, ...]) -> list[str]:
    return [p.name for p in offered]


def test_everybody_sees_open_profiles_groups_see_theirs_and_admins_see_all() -> None:
    assert names(OPEN) == ["small", "standard"]
    assert names(profiles.usable(SETTINGS, ["imaging", "other"])) == ["small", "standard", "gpu"]
    assert names(profiles.usable(SETTINGS, [], admin=True)) == ["small", "standard", "gpu"]


def test_the_default_is_preselected_unless_there_is_a_last_choice() -> None:
    assert profiles.preferred(SETTINGS, OPEN).name == "standard"
    assert profiles.preferred(SETTINGS, OPEN, "small").name == "small"
    assert profiles.preferred(SETTINGS, OPEN, "gpu").name == "standard"
    assert profiles.preferred(SETTINGS, OPEN, ["hostile"]).name == "standard"
    assert profiles.preferred(SETTINGS, OPEN[:1]).name == "small"


def test_somebody_to_whom_nothing_is_open_is_told_so() -> None:
    with pytest.raises(profiles.OptionsError, match="No profile is open to you") as caught:
        profiles.choose({}, SETTINGS, ())
    assert caught.value.status == 403


def test_a_profile_is_chosen_by_name_and_nothing_means_the_default() -> None:
    assert profiles.choose({"profile": "small"}, SETTINGS, OPEN).profile.name == "small"
    assert profiles.choose({}, SETTINGS, OPEN).profile.name == "standard"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"env": {"LD_PRELOAD": "/tmp/x.so"}}, "not 'env'"),
        ({"cmd": ["/bin/sh"], "args": ["--ip=0.0.0.0"]}, "not 'args', 'cmd'"),
        ({"profile": "small", "mem_limit": "1T"}, "not 'mem_limit'"),
        ({"profile": "none"}, "no profile 'none'"),
        ({"profile": "SMALL"}, "no profile 'SMALL'"),
        ({"profile": "small\n"}, "no profile"),
        ({"profile": ""}, "no profile ''"),
        ({"profile": "../small"}, "no profile '../small'"),
        ({"profile": "$(id)"}, "no profile"),
        ({"profile": ["small"]}, "must be one name"),
        ({"profile": {"name": "small"}}, "must be one name"),
        ({"profile": None}, "must be one name"),
        ({"profile": 1}, "must be one name"),
        ({"profile": True}, "must be one name"),
        ({"profile": "x" * 10_000_000}, "no profile 'xxxx"),
        ({1: 2}, "not 1"),
        ({"": "small"}, "not ''"),
        (["profile", "small"], "must be like"),
        ("small", "must be like"),
        (None, "must be like"),
    ],
)
def test_every_other_wish_is_refused_in_few_words(options: object, says: str) -> None:
    with pytest.raises(profiles.OptionsError) as caught:
        profiles.choose(options, SETTINGS, OPEN)
    assert says in str(caught.value)
    assert caught.value.status == 400
    assert len(str(caught.value)) < 300


def test_all_that_is_wrong_is_named_at_once_with_the_valid_choices() -> None:
    hostile = {f"key{i}": "x" for i in range(1000)} | {"profile": 3}
    with pytest.raises(profiles.OptionsError) as caught:
        profiles.choose(hostile, SETTINGS, OPEN)
    text = str(caught.value)
    assert "and 995 more" in text
    assert "must be one name" in text
    assert "You can choose: small, standard." in text


def test_a_profile_of_another_group_is_forbidden() -> None:
    with pytest.raises(profiles.OptionsError, match="may not use the profile 'gpu'") as caught:
        profiles.choose({"profile": "gpu"}, SETTINGS, OPEN)
    assert caught.value.status == 403


def test_form_fields_become_options_and_doubled_ones_are_refused() -> None:
    assert profiles.from_form({"profile": ["small"]}) == {"profile": "small"}
    with pytest.raises(profiles.OptionsError, match="must be one name"):
        profiles.choose(profiles.from_form({"profile": ["small", "gpu"]}), SETTINGS, OPEN)
    with pytest.raises(profiles.OptionsError, match="must be one name"):
        profiles.choose(profiles.from_form({"profile": []}), SETTINGS, OPEN)


@pytest.mark.parametrize("stored", [{"profile": "retired"}, {"profile": "gpu"}, {"old": 1}, None])
def test_an_earlier_choice_that_is_gone_becomes_the_default_and_says_so(stored: object) -> None:
    choice, note = profiles.choose_again(stored, SETTINGS, OPEN)
    assert choice.options == {"profile": "standard"}
    assert "not on offer" in note
    assert "'Standard'" in note


def test_an_earlier_choice_that_is_still_there_is_kept_silently() -> None:
    choice, note = profiles.choose_again({"profile": "small"}, SETTINGS, OPEN)
    assert (choice.profile.name, note) == ("small", "")


SLURM = Settings(
    target="slurm",
    slurm={
        "partitions": ("cpu", "spot", "gpu"),
        "hub_host": "head",
        "environments": "/shared/envs",
    },
    profiles=(
        Profile(name="small", title="Small", default=True),
        Profile(name="card", title="Card", gpus=1, partitions=("gpu",)),
    ),
)


CHOICE = SLURM.partitions_of


def test_on_slurm_the_partition_is_chosen_too_from_what_the_profile_may_use() -> None:
    offered = SLURM.profiles
    assert profiles.choose({}, SLURM, offered, CHOICE).options == {
        "profile": "small",
        "partition": "cpu",
    }
    spot = {"profile": "small", "partition": "spot"}
    assert profiles.choose(spot, SLURM, offered, CHOICE).options == spot
    assert profiles.choose({"profile": "card"}, SLURM, offered, CHOICE).partition == "gpu"
    assert profiles.choose_again(spot, SLURM, offered, CHOICE)[0].options == spot
    gone, note = profiles.choose_again(
        {"profile": "card", "partition": "spot"}, SLURM, offered, CHOICE
    )
    assert gone.options == {"profile": "small", "partition": "cpu"}
    assert "not on offer" in note


@pytest.mark.parametrize(
    "wanted", ["root", "", "cpu,gpu", "cpu --uid=0", "$(id)", ["cpu"], None, 3, {"a": 1}]
)
def test_every_other_partition_is_refused(wanted: object) -> None:
    with pytest.raises(profiles.OptionsError, match="cannot run in the partition") as caught:
        profiles.choose({"partition": wanted}, SLURM, SLURM.profiles, CHOICE)
    assert caught.value.status == 400
    assert "cpu, spot, gpu" in str(caught.value)


def test_a_target_without_partitions_takes_none() -> None:
    with pytest.raises(profiles.OptionsError, match="Only 'profile' can be chosen"):
        profiles.choose({"partition": "cpu"}, SETTINGS, OPEN)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target": "local"}, "partitions that are not in slurm.partitions: gpu"),
        ({"profiles": ({"name": "a", "title": "A", "partitions": ("x",)},)}, "partitions: x"),
        ({"target": "local", "profiles": ({"name": "a", "title": "A", "gpus": 1},)}, "gpus"),
        ({"slurm": {**SLURM.slurm.model_dump(), "partitions": ("a;b",)}}, "pattern"),  # type: ignore[union-attr]
    ],
)
def test_partitions_and_gpus_in_the_lab_file_must_make_sense(
    changes: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Settings.model_validate({**SLURM.model_dump(), **changes})


def test_cards_say_what_a_profile_has() -> None:
    small, standard = profiles.cards(OPEN, OPEN[1])
    assert (small["cpu"], small["memory"], small["selected"]) == ("1 core", "1 GB", False)
    assert (standard["cpu"], standard["memory"], standard["selected"]) == (
        "2.5 cores",
        "4 GB",
        True,
    )
