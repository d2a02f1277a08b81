"""The lab file's section for members' web apps."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from hub.labfile.fields import Bytes, Duration, Frozen, GroupName


class WebApps(Frozen):
    """Shiny and Dash apps that members publish from a notebook."""

    groups: tuple[GroupName, ...] = Field(
        (), description="who may publish; empty: administrators alone"
    )
    each: int = Field(10, ge=1, le=1000, description="apps that one person may have")
    size: Bytes = Field(50 << 20, ge=1 << 20, le=1 << 30, description="of all files of an app")
    cpu: float = Field(1.0, gt=0, le=1024, description="cores that an app may use")
    memory: Bytes = Field(1 << 30, ge=256 << 20, description="that an app may use")
    processes: int = Field(128, ge=32, le=10_000, description="processes and threads at once")
    idle: Duration = Field(
        timedelta(minutes=30), description="an app that nobody uses is stopped after so long"
    )
